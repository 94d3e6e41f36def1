/** What a run learns from: a text file as tokens, some windows of it held out to measure by. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { KvasirError, reasonOf } from '../core/errors.ts'
import type { Tokenizer } from '../text/tokenizer.ts'

export interface TrainText {
  readonly path: string
  readonly train: Int32Array
  /** Windows from all over the text, for the parts of a text differ. */
  readonly heldOut: readonly Int32Array[]
  /** Of the tokens and of what is held out: the same text, the same tokenizer, the same split. */
  readonly hash: string
  /** What stands first in every window, if the model wants that. */
  readonly bos: number | null
}

export interface TextOptions {
  /** Tokens of a window. */
  readonly nTokens: number
  /** Share of the tokens that is held out; 0 for none. */
  readonly heldOut: number
  /** Tokens of the chat template, written out in the text, are read as such. */
  readonly parseSpecial?: boolean
}

/** Reads a text, perhaps gzipped. Errors: `usage`, `file_error`, `data_unusable` for what is no text or too short. */
export function readTrainText(
  path: string,
  tokenizer: Tokenizer,
  { nTokens, heldOut, parseSpecial = false }: TextOptions,
): TrainText {
  const fail = (reason: string): never => {
    throw new KvasirError('data_unusable', { path, reason })
  }
  if (!(heldOut >= 0 && heldOut < 1)) throw new KvasirError('usage', { reason: 'heldOut must be from 0 to below 1' })
  const text = readText(path, fail)
  if (text.trim() === '') fail('there is nothing in it')
  const tokens = tokenizer.encode(text, { addSpecial: false, parseSpecial })
  const size = nTokens + 1
  const nHeldOut = Math.ceil((tokens.length * heldOut) / size)
  const left = tokens.length - nHeldOut * size
  if (left < size) {
    const rest = nHeldOut === 0 ? '' : `, of which ${nHeldOut * size} are held out`
    fail(`it has ${tokens.length} tokens${rest}, and a window needs ${size}`)
  }
  const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
  const hash = createHash('sha256').update(bytes).update(`${nHeldOut} of ${size}`).digest('hex')
  return { path, ...split(tokens, { size, nHeldOut }), hash, bos: tokenizer.addBos ? tokenizer.bos : null }
}

/** `nHeldOut` windows at equal distances, and what lies between them. */
function split(tokens: Int32Array, { size, nHeldOut }: { readonly size: number; readonly nHeldOut: number }) {
  const train = new Int32Array(tokens.length - nHeldOut * size)
  const heldOut: Int32Array[] = []
  let [from, filled] = [0, 0]
  for (let i = 0; i <= nHeldOut; i++) {
    const next = i === nHeldOut ? tokens.length : i * size + Math.floor((train.length * (i + 0.5)) / nHeldOut)
    train.set(tokens.subarray(from, next), filled)
    filled += next - from
    from = next + size
    if (i < nHeldOut) heldOut.push(tokens.subarray(next, from))
  }
  return { train, heldOut }
}

function readText(path: string, fail: (reason: string) => never): string {
  const bytes = readBytes(path, fail)
  if (bytes.includes(0)) fail('it is not text: it has bytes of 0')
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return fail('it is not UTF-8')
  }
}

function readBytes(path: string, fail: (reason: string) => never): Buffer {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new KvasirError('file_error', { action: 'read', path, reason: reasonOf(error) }, { cause: error })
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  try {
    return gunzipSync(bytes)
  } catch (error) {
    return fail(`it cannot be unpacked: ${reasonOf(error)}`)
  }
}
