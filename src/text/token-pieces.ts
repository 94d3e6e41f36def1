/** What both tokenizers do with the bytes of tokens. */
import { KvasirError } from '../core/errors.ts'

const SPACE = 0x20

export interface Pieces {
  readonly nVocab: number
  piece(token: number, special: boolean): Uint8Array
  isControl(token: number): boolean
  /** Whether encoding puts a space in front of a text. */
  readonly addsSpace: boolean
}

/** Errors: `invalid_request` for a number that is no token; C would read beyond its arrays. */
export function checkToken(token: number, nVocab: number): void {
  if (Number.isInteger(token) && token >= 0 && token < nVocab) return
  throw new KvasirError('invalid_request', { reason: `${token} is no token (0 to ${nVocab - 1})` })
}

/** See `Tokenizer.decode`. The space goes from the first token that is not a control token. */
export function joinPieces(pieces: Pieces, tokens: ArrayLike<number>, special: boolean): string {
  const parts: Uint8Array[] = []
  let dropsSpace = pieces.addsSpace
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!
    const bytes = pieces.piece(token, special)
    const isText = !pieces.isControl(token)
    parts.push(dropsSpace && isText && bytes[0] === SPACE ? bytes.subarray(1) : bytes)
    if (isText) dropsSpace = false
  }
  return Buffer.concat(parts).toString('utf8')
}
