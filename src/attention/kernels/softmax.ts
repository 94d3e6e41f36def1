/** Scores → probabilities: the layer's scale, its softcap and its sinks, under a mask. */
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import type { AttentionLayer } from '../method.ts'

/** What of a layer makes probabilities of scores. */
export type Normalised = Pick<AttentionLayer, 'scale' | 'softcap' | 'sinks'>

/** ggml's threads share the rows of dimension 1: more of them than most processors have cores. */
const MOST_ROWS = 16

/** softmax of scores f32[m, n · g, G], as {@link qkScores} gives them, under a mask f16[m, n]. */
export function softmax(g: Graph, layer: Normalised, scores: Tensor, { mask, n }: { mask: Tensor; n: number }): Tensor {
  const [m, rows, G] = scores.ne
  const nHead = (rows * G) / n
  const { x, scale } = capped(g, layer, scores)
  // Those of a single query are its heads; a sink belongs to a head, so then they stay apart.
  const nRows = n === 1 && !layer.sinks ? largestDivisor(nHead, MOST_ROWS) : n
  const p = g.softMaxExt(g.reshape(x, m, nRows, (n * nHead) / nRows), rowsOf(g, mask, Math.max(n, nRows)), scale, layer.sinks)
  return g.reshape(p, m, rows, G)
}

/** Scores as they go into softmax, and what they are still to be multiplied by. */
export function capped(g: Graph, { scale, softcap }: Omit<Normalised, 'sinks'>, scores: Tensor): { x: Tensor; scale: number } {
  if (softcap === null) return { x: scores, scale }
  return { x: g.tanh(g.scale(scores, scale / softcap)), scale: softcap }
}

/** A mask with a row for each of some heads of a single query; every layer uses it. */
function rowsOf(g: Graph, mask: Tensor, nRows: number): Tensor {
  return mask.ne[1] >= nRows ? mask : g.once(`rows:${mask.ptr}:${nRows}`, () => g.repeat(mask, mask.ne[0], nRows))
}

function largestDivisor(n: number, most: number): number {
  let divisor = Math.min(n, most)
  while (n % divisor !== 0) divisor--
  return divisor
}
