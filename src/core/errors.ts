/**
 * Every error a user can meet, in one table: what it says, its HTTP status and OpenAI type, and what to do about it.
 * Rendered in one place per edge: `server/app.ts` and `cli/main.ts`.
 */
interface ErrorRow {
  readonly status: number
  readonly type: string
  /** `{name}` is replaced by the field of that name. */
  readonly message: string
  readonly remedy: string
}

export const ERRORS = {
  library_missing: {
    status: 500,
    type: 'server_error',
    message: 'ggml is not installed for {platform}: {reason}',
    remedy: 'Reinstall without --omit=optional, so that npm adds the @node-llama-cpp package of your platform.',
  },
  library_version: {
    status: 500,
    type: 'server_error',
    message: 'ggml {found} was found in {path}, but this version of Kvasir needs {needed}',
    remedy: 'Install @node-llama-cpp/<platform> at the version named in package.json.',
  },
  compute_failed: {
    status: 500,
    type: 'server_error',
    message: 'computing a step failed: {reason}',
    remedy: 'If memory is short, use a smaller context (-c), batch (-ub) or model.',
  },
  out_of_memory: {
    status: 503,
    type: 'server_error',
    message: 'cannot get {bytes} bytes of memory for {what}',
    remedy: 'Use a smaller context (-c), fewer sequences (-np) or a smaller model.',
  },
  model_not_found: {
    status: 404,
    type: 'invalid_request_error',
    message: "no model at '{path}': {reason}",
    remedy: 'Give -m a .gguf file, or a folder with config.json and *.safetensors.',
  },
  model_invalid: {
    status: 400,
    type: 'invalid_request_error',
    message: "'{path}' cannot be read as a model: {reason}",
    remedy: 'The file is damaged or of another kind; download it again and compare its checksum.',
  },
  cache_invalid: {
    status: 400,
    type: 'invalid_request_error',
    message: 'the saved cache cannot be used: {reason}',
    remedy: 'Drop it; the prompt will be read again.',
  },
  model_unsupported: {
    status: 400,
    type: 'invalid_request_error',
    message: "'{path}' is not supported: {reason}",
    remedy: 'See the list of architectures in the README.',
  },
  tokenizer_invalid: {
    status: 400,
    type: 'invalid_request_error',
    message: "the tokenizer of '{path}' cannot be used: {reason}",
    remedy: 'The file is damaged, or holds a tokenizer we do not know.',
  },
  chat_template_failed: {
    status: 400,
    type: 'invalid_request_error',
    message: 'the chat template of the model refused the messages: {reason}',
    remedy: 'Check roles and their order, or use raw prompts (/v1/completions, --raw).',
  },
  exceed_context_size_error: {
    status: 400,
    type: 'exceed_context_size_error',
    message: 'the request exceeds the available context size: {n_prompt_tokens} tokens in the prompt, context of {n_ctx}',
    remedy: 'Shorten the prompt, or start with a larger context (-c) if the model has one.',
  },
  invalid_request: {
    status: 400,
    type: 'invalid_request_error',
    message: '{reason}',
    remedy: 'Correct the field named in the message.',
  },
  attention_invalid: {
    status: 400,
    type: 'invalid_request_error',
    message: 'attention: {reason}',
    remedy: 'See `kvasir methods` for the methods and their options.',
  },
  invalid_json: {
    status: 400,
    type: 'invalid_request_error',
    message: 'the request body is not valid JSON: {reason}',
    remedy: 'Send a JSON object with content-type application/json.',
  },
  body_too_large: {
    status: 413,
    type: 'invalid_request_error',
    message: 'the request body is larger than {limit_bytes} bytes',
    remedy: 'Send less at once.',
  },
  unauthorized: {
    status: 401,
    type: 'authentication_error',
    message: 'missing or wrong API key',
    remedy: 'Send the key as "Authorization: Bearer KEY".',
  },
  not_found: {
    status: 404,
    type: 'not_found_error',
    message: 'there is nothing at {method} {path}',
    remedy: 'See the list of endpoints in the README.',
  },
  method_not_allowed: {
    status: 405,
    type: 'invalid_request_error',
    message: '{method} is not possible at {path}, only {allowed}',
    remedy: 'See the list of endpoints in the README.',
  },
  forbidden_origin: {
    status: 403,
    type: 'permission_error',
    message: 'requests by way of {origin} are not allowed',
    remedy: 'Name the origin with --cors-origins, or protect the server with --api-key.',
  },
  internal: {
    status: 500,
    type: 'server_error',
    message: 'something went wrong inside: {reason}',
    remedy: 'This is a defect: please report it with the log.',
  },
  loading: {
    status: 503,
    type: 'unavailable_error',
    message: 'the model is still loading',
    remedy: 'Ask /health again in a moment.',
  },
  overloaded: {
    status: 503,
    type: 'unavailable_error',
    message: 'too many requests are waiting ({waiting})',
    remedy: 'Try again later, or start with more sequences (-np).',
  },
  closed: {
    status: 503,
    type: 'unavailable_error',
    message: 'the model has been closed',
    remedy: 'Load it again.',
  },
  aborted: {
    status: 499,
    type: 'aborted',
    message: 'stopped before it was finished',
    remedy: 'Nothing to do: you asked for it.',
  },
  usage: {
    status: 400,
    type: 'invalid_request_error',
    message: '{reason}',
    remedy: 'See --help.',
  },
  data_unusable: {
    status: 400,
    type: 'invalid_request_error',
    message: "cannot train on '{path}': {reason}",
    remedy: 'Give more text, or a shorter window.',
  },
  layers_unusable: {
    status: 400,
    type: 'invalid_request_error',
    message: 'these layers cannot be trained: {reason}',
    remedy: 'Choose other layers, or another model.',
  },
  checkpoint_mismatch: {
    status: 400,
    type: 'invalid_request_error',
    message: "'{path}' cannot be resumed: {reason}",
    remedy: 'Give the settings it was begun with, or begin anew with another path.',
  },
  training_diverged: {
    status: 500,
    type: 'server_error',
    message: 'the loss of step {step} is not a number',
    remedy: 'Lower the learning rate or lengthen its warm-up; the last checkpoint is as it was.',
  },
  port_in_use: {
    status: 500,
    type: 'server_error',
    message: 'cannot listen on {host}:{port}: {reason}',
    remedy: 'Choose another port with --port, or stop the program that uses this one.',
  },
  file_error: {
    status: 500,
    type: 'server_error',
    message: "cannot {action} '{path}': {reason}",
    remedy: 'Check that the path exists, that you may use it, and that the disk has room.',
  },
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS
export type ErrorFields = Readonly<Record<string, string | number | bigint>>

/** The one error class of the project: a row of {@link ERRORS} with its fields filled in. */
export class KvasirError extends Error {
  override readonly name = 'KvasirError'
  readonly code: ErrorCode
  readonly fields: ErrorFields

  constructor(code: ErrorCode, fields: ErrorFields = {}, options?: ErrorOptions) {
    super(
      ERRORS[code].message.replace(/\{(\w+)\}/g, (_, name: string) => String(fields[name] ?? '?')),
      options,
    )
    this.code = code
    this.fields = fields
  }

  get status(): number {
    return ERRORS[this.code].status
  }

  get type(): string {
    return ERRORS[this.code].type
  }

  get remedy(): string {
    return ERRORS[this.code].remedy
  }
}

/** The reason in an unknown thrown value, in one line. */
export function reasonOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!
}
