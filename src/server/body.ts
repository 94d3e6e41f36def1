/** Request bodies: at most so many bytes, JSON, an object, of a schema. */
import type { z } from 'zod'
import { KvasirError, reasonOf } from '../core/errors.ts'
import type { AppContext } from './context.ts'
import { invalid } from './error-body.ts'

/** The whole body as text, whatever content type it claims. */
async function readText(c: AppContext): Promise<string> {
  const limit = c.var.maxBodyBytes
  const tooLarge = new KvasirError('body_too_large', { limit_bytes: limit })
  if (Number(c.req.header('content-length') ?? 0) > limit) throw tooLarge
  const reader = c.req.raw.body?.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  while (reader) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw new KvasirError('aborted', {}, { cause: error })
    })
    if (done) break
    size += value.byteLength
    if (size > limit) throw tooLarge
    chunks.push(value)
  }
  return new TextDecoder().decode(Buffer.concat(chunks, size))
}

/** `messages[0].content`, from zod's path. */
function fieldName(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, key) => name + (typeof key === 'number' ? `[${key}]` : `${name && '.'}${String(key)}`), '')
}

function faultOf(error: z.ZodError): KvasirError {
  const { path, message } = error.issues[0]!
  const reason = message
    .replace(/^Invalid input: /, '')
    .replace(/^expected (.+), received undefined$/, 'is missing (expected $1)')
    .replace(/^[A-Z]/, (letter) => letter.toLowerCase())
  return invalid(fieldName(path) || 'body', reason)
}

/** An object's fields; `null` means that a field is left out, as OpenAI's clients have it. */
type Fields = Readonly<Record<string, unknown>>

function parseFields(text: string): Fields {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new KvasirError('invalid_json', { reason: reasonOf(error) })
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw invalid('body', 'must be a JSON object')
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null))
}

/** The body as the schema has it; `refuse` sees the fields first, also those that the schema does not know. */
export async function readBody<T>(c: AppContext, schema: z.ZodType<T>, refuse?: (fields: Fields) => void): Promise<T> {
  const fields = parseFields(await readText(c))
  refuse?.(fields)
  const parsed = schema.safeParse(fields)
  if (!parsed.success) throw faultOf(parsed.error)
  return parsed.data
}
