/** SparQ's steps 5 to 7: attention over the chosen keys, and the mean of values for the rest. */
import type { Graph } from '../../../ggml/graph.ts'
import type { Tensor } from '../../../ggml/tensor.ts'
import type { Chunk } from '../../chunk.ts'
import { ungroupHeads } from '../../kernels/heads.ts'
import { qkScores } from '../../kernels/scores.ts'
import { capped } from '../../kernels/softmax.ts'
import type { KvView, ReadResult } from '../../method.ts'
import type { Chosen } from './choose.ts'

/** `mean` f32[dV, 1, G], or null where what the guess gives to keys not read goes to nobody. */
export function readChosen({ g }: Chunk, view: KvView, { q, rows, guess }: Chosen, mean: Tensor | null): ReadResult {
  const { layer, nKv, from } = view
  const { nHead: H, nHeadKv: G, sinks } = layer
  const [k, group] = [rows.ne[0], H / G]
  // 5: s_j = softmax(q_j · K[i2] · scale), y_j = s_j · V[i2]. Rows not in use are masked, where fewer than k are.
  const { x, scale } = capped(g, layer, qkScores(g, layer, g.getRows(view.k, rows), q))
  const open = g.reshape(g.getRows(g.reshape(view.mask, 1, nKv), g.reshape(rows, k * G)), k, 1, G)
  const scores = g.add(x, g.repeat(open, k, group, G))
  const p = sinks
    ? g.reshape(g.softMaxExt(g.reshape(scores, k, 1, H), null, scale, sinks), k, group, G)
    : g.softMaxExt(scores, null, scale) // f32[k, g, G]
  const y = g.outProd(g.getRows(view.v.rows(g, nKv, from), rows), g.permute(p, 1, 0, 2, 3)) // f32[dV, g, G]
  if (mean === null) return { o: ungroupHeads(g, layer, y, 1), p: { values: p, index: rows } }
  // 6: α_j = Σ ŝ_j[i2], of the guess as it was; 7: o_j = α_j · y_j + (1 - α_j) · v̄.
  const each = g.repeat(g.reshape(rows, k, 1, G), k, group, G)
  const found = g.sumRows(g.reshape(g.getRows(g.reshape(guess, 1, nKv, group, G), each), k, group, G)) // f32[1, g, G]
  const share = sinks ? besideSinks(g, { found, all: g.sumRows(guess), read: g.sumRows(p) }) : found
  const o = g.add(g.mul(g.sub(y, mean), share), mean)
  return { o: ungroupHeads(g, layer, o, 1), p: { values: g.mul(p, share), index: rows } }
}

/**
 * Where a sink takes a part, probabilities sum to less than 1: those of the guess to `all`, of it `found` for the keys read, and
 * those of the keys read alone to `read`. For one of these the guess gives (all - found) / found to the others, so
 * o = (y + read · (all - found) / found · v̄) / (1 + read · (all - found) / found), which is α · y + (1 - α) · v̄ with this α.
 */
function besideSinks(g: Graph, { found, all, read }: Readonly<Record<'found' | 'all' | 'read', Tensor>>): Tensor {
  const some = g.scaleBias(found, 1, 1e-30) // where a sink takes all there is
  return g.div(some, g.add(some, g.mul(g.sub(all, found), read)))
}
