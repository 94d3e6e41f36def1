/** The bundled model and its text. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { referenceTokens } from './reference.ts'

const at = (path: string): string => fileURLToPath(new URL(`../../models/${path}`, import.meta.url))

export const BUNDLED_GGUF = at('kvasir-demo/kvasir-demo-f16.gguf')
export const BUNDLED_FOLDER = at('kvasir-demo')
export const HELDOUT = at('text/heldout.txt')

/** The first `n` tokens of the held-out text. */
export function heldoutTokens(n: number): Int32Array {
  const text = readFileSync(HELDOUT, 'utf8').slice(0, 8 * n)
  const tokens = referenceTokens(BUNDLED_GGUF, text).slice(0, n)
  if (tokens.length < n) throw new Error(`the text gives ${tokens.length} tokens, not ${n}`)
  return tokens
}
