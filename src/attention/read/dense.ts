/**
 * The empty answer of the read axis: every query reads every kept row that it sees. O(T) per token, exact.
 *
 * There are two ways of computing it on a CPU (kernels/read-densely.ts):
 * - few queries: K·q, softmax, V·p as products over the cache as it lies, keys as rows and values transposed (kv/layout.ts).
 *   Query heads of one KV head go through K and V together, so both are read once per step: 2·G·T·d·e bytes and 4·H·T·d FLOPs
 *   per layer and token.
 * - many queries (a prompt): `flash_attn_ext`, which never holds all scores. It wants V as rows, so tiles are turned back once
 *   per layer and step; for hundreds of queries that is about a hundredth of the work.
 */
import { windowOf } from '../../core/shape.ts'
import { readDensely } from '../kernels/read-densely.ts'
import { keysDense, type Read } from '../method.ts'

export const readAll: Read = {
  phases: 'both',
  record: (chunk, _, wantsProbs) => ({ attend: (view) => readDensely(chunk.g, view, wantsProbs) }),
  cost: (layer, { rows }, { nTokens }) => keysDense(rows.nRows, nTokens, windowOf(layer)),
}
