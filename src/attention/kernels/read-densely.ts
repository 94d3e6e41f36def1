/** Attention over a view of the cache, in one of the two ways that are fast on a CPU. */
import type { Graph } from '../../ggml/graph.ts'
import type { KvView, ReadResult } from '../method.ts'
import { groupHeads, ungroupHeads } from './heads.ts'
import { qkScores } from './scores.ts'
import { softmax } from './softmax.ts'
import { applyValues } from './values.ts'

/** From this many queries on, flash attention computes in tiles (64 queries each) and is the faster way. */
export const FLASH_QUERIES = 64

/** The faster way; only products tell probabilities, and values as rows would have to be widened for them. */
export function readDensely(g: Graph, view: KvView, wantsProbs: boolean): ReadResult {
  const isFlash = view.q.ne[2] >= FLASH_QUERIES || view.v.layout.order === 'rows'
  return isFlash && !wantsProbs ? readByFlash(g, view) : readByProducts(g, view)
}

export function readByProducts(g: Graph, view: KvView): ReadResult {
  const { layer, q, k, mask } = view
  const n = q.ne[2]
  const p = softmax(g, layer, qkScores(g, layer, k, groupHeads(g, layer, q)), { mask, n })
  return { o: ungroupHeads(g, layer, applyValues(g, layer, p, view), n), p: { values: p, index: null } }
}

function readByFlash(g: Graph, { layer, q, k, v, mask, from, nKv }: KvView): ReadResult {
  const o = g.flashAttnExt(g.permute(q, 0, 2, 1, 3), k, v.rows(g, nKv, from), mask, layer)
  return { o: g.reshape(o, o.ne[0] * o.ne[1], q.ne[2]), p: null }
}
