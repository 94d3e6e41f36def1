/** How much a chunk may bring where what it computes is large. */
import type { ModelShape } from '../../core/shape.ts'
import type { KvCache } from '../../kv/cache.ts'

/** Probabilities of a chunk that may be in memory at once. */
const MOST_BYTES = 256 * 2 ** 20
const MOST_QUERIES = 512

/** Tokens that a chunk may bring where the probabilities of a whole layer outlive it. */
export function queriesAtOnce({ nHead }: Pick<ModelShape, 'nHead'>, { rows }: KvCache): number {
  const perQuery = Float32Array.BYTES_PER_ELEMENT * nHead * (rows.nRows + MOST_QUERIES)
  return Math.min(MOST_QUERIES, Math.max(1, Math.floor(MOST_BYTES / perQuery)))
}
