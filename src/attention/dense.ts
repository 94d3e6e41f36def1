/**
 * Dense attention, the empty setting: every row stays, and every query reads every key before it. O(T) per token, exact.
 *
 * There are two ways of computing it on a CPU:
 * - few queries: K·q, softmax, V·p as products over the cache as it lies, keys as rows and values as columns
 *   (kv/layout.ts). Query heads of one KV head go through K and V together, so both are read once per step: 2·G·T·d·e bytes
 *   and 4·H·T·d FLOPs per layer and token.
 * - many queries (a prompt): `flash_attn_ext`, which never holds all scores. It wants V as rows, so columns are
 *   transposed once per layer and step; for hundreds of queries that is about a hundredth of the work.
 */
import { type Keep, keysDense, type Kept, type Read, type ReadResult, type Step } from './method.ts'
import { groupHeads, inPlace, scoresOf, softmax, ungroupHeads, weighStored } from './pieces.ts'

/** From this many queries on, flash attention computes in tiles (64 queries each) and is the faster way. */
export const FLASH_QUERIES = 64

/** Every row stays, at its own position. */
export const keepAll: Keep = {
  positions: 'absolute',
  needsProbabilities: false,
  isEndless: false,
  nRows: (nCtx) => nCtx,
  start: (step, part) => inPlace(step, part, false),
}

/** Every query reads every kept row before it. */
export const readAll: Read = {
  readsPrompts: true,
  valueOrder: () => 'columns',
  start: (step, _, needsProbabilities) => (kept) => readDensely(step, kept, needsProbabilities),
  keysRead: (_, { cache, nTokens }) => keysDense(cache.rows.nRows, nTokens),
}

/** The faster way; only products tell probabilities, and values as rows would have to be widened for them. */
export function readDensely(step: Step, kept: Kept, needsProbabilities: boolean): ReadResult {
  const isFlash = kept.q.ne[2] >= FLASH_QUERIES || kept.v.layout.order === 'rows'
  return isFlash && !needsProbabilities ? readByFlash(step, kept) : readByProducts(step, kept)
}

function readByProducts(step: Step, { q, k, v, mask }: Kept): ReadResult {
  const n = q.ne[2]
  const p = softmax(step, scoresOf(step, k, groupHeads(step, q)), mask, n)
  return { o: ungroupHeads(step, weighStored(step, p, v), n), p: { values: p, index: null } }
}

function readByFlash({ g, shape }: Step, { q, k, v, mask, nRead }: Kept): ReadResult {
  const { headDim: d, nHead: H } = shape
  const o = g.flashAttnExt(g.permute(q, 0, 2, 1, 3), k, v.rows(g, nRead), mask, 1 / Math.sqrt(d))
  return { o: g.reshape(o, d * H, q.ne[2]), p: null }
}
