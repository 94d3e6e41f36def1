/** Any thrown value → the error object that clients know. */
import { KvasirError, reasonOf } from '../core/errors.ts'

export interface ErrorBody {
  readonly error: {
    readonly message: string
    readonly type: string
    /** A row of the table of errors; the HTTP status for `exceed_context_size_error`, as llama.cpp has it. */
    readonly code: string | number
    /** The field of the request that is at fault. */
    readonly param?: string | null
    readonly n_prompt_tokens?: number
    readonly n_ctx?: number
  }
}

export function asKvasirError(thrown: unknown): KvasirError {
  return thrown instanceof KvasirError ? thrown : new KvasirError('internal', { reason: reasonOf(thrown) }, { cause: thrown })
}

export function errorBody(error: KvasirError): ErrorBody {
  const { message, type, code, fields } = error
  if (code === 'exceed_context_size_error')
    return {
      error: {
        code: error.status,
        type,
        message,
        n_prompt_tokens: Number(fields['n_prompt_tokens']),
        n_ctx: Number(fields['n_ctx']),
      },
    }
  return { error: { message, type, code, param: fields['param'] === undefined ? null : String(fields['param']) } }
}

/** A request that cannot be served as it stands; `param` names the field. */
export function invalid(param: string, reason: string): KvasirError {
  return new KvasirError('invalid_request', { reason: `${param}: ${reason}`, param })
}
