/**
 * Attention over whole sequences of equal length, from operations that have gradients; the pieces, and the dense layer made of
 * them. Shapes: d = headDim, H = nHead, G = nHeadKv, T = tokens of a sequence, B = sequences.
 *
 * The sequences of a batch lie beside each other in the dimension of the heads, `[d, T, H · B]`: query head h of sequence b is
 * number b · H + h, its KV head number b · G + h / g, so that ggml's repetition of KV heads is right for all of them, and
 * dimension 3 stays 1, as the gradient of a repeated product demands.
 */
import type { AttentionLayer } from '../attention/method.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { linear, type Linear } from '../nn/linear.ts'
import type { Batch } from './batch.ts'

/** x f32[nEmbd, T · B] → f32[d, heads, T · B]. */
export function project(g: Graph, weights: Linear, { x, headDim }: { readonly x: Tensor; readonly headDim: number }): Tensor {
  const y = linear(g, weights, x)
  return g.reshape(y, headDim, y.ne[0] / headDim, y.ne[1])
}

/** Rotates f32[d, heads, T · B] to the batch's positions. */
export function rotate(g: Graph, layer: AttentionLayer, { x, batch }: { readonly x: Tensor; readonly batch: Batch }): Tensor {
  return g.ropeExt(x, batch.positions, layer.ropeFactors, layer.rope)
}

/** Queries or keys, f32[d, heads, T · B] → f32[d, T, heads · B]. */
export function byHead(g: Graph, x: Tensor, { nTokens, nSequences }: Batch): Tensor {
  const [d, heads] = x.ne
  const split = g.reshape(x, d, heads, nTokens, nSequences)
  return g.reshape(g.cont(g.permute(split, 0, 2, 1, 3)), d, nTokens, heads * nSequences)
}

interface Heads {
  /** f32[nEmbd, T · B] */
  readonly x: Tensor
  readonly batch: Batch
  readonly headDim: number
}

/** Queries or keys of a layer by some weights, rotated: f32[d, T, heads · B]. */
export function rotatedHeads(g: Graph, layer: AttentionLayer, weights: Linear, { x, batch, headDim }: Heads): Tensor {
  return byHead(g, rotate(g, layer, { x: project(g, weights, { x, headDim }), batch }), batch)
}

/** Values, f32[d, G, T · B] → f32[T, d, G · B], to be weighed by probabilities over T. */
export function valuesByHead(g: Graph, v: Tensor, { nTokens, nSequences }: Batch): Tensor {
  const [d, heads] = v.ne
  const split = g.reshape(v, d, heads, nTokens, nSequences)
  return g.reshape(g.cont(g.permute(split, 1, 2, 0, 3)), nTokens, d, heads * nSequences)
}

/** softmax(k · q / √d + mask): f32[T, T, H · B], over keys in dimension 0; k f32[d, T, G · B], q f32[d, T, H · B]. */
export function probabilities(g: Graph, { q, k }: { readonly q: Tensor; readonly k: Tensor }, mask: Tensor): Tensor {
  return g.softMaxExt(g.mulMat(k, q), mask, 1 / Math.sqrt(q.ne[0]))
}

/** Σ p · v: values f32[T, d, G · B] and probabilities f32[T, T, H · B] → f32[d · H, T · B]. */
export function weigh(g: Graph, { v, p }: { readonly v: Tensor; readonly p: Tensor }, { nTokens, nSequences }: Batch): Tensor {
  const o = g.mulMat(v, p) // [d, T, H · B]
  const [d, , heads] = o.ne
  const split = g.reshape(o, d, nTokens, heads / nSequences, nSequences)
  return g.reshape(g.cont(g.permute(split, 0, 2, 1, 3)), (d * heads) / nSequences, nTokens * nSequences)
}

/** The attention of one layer: x f32[nEmbd, T · B] → f32[nEmbd, T · B]. */
export type AttendTraining = (layer: AttentionLayer, x: Tensor) => Tensor

/** Every query sees its own key and those before it. */
export function denseTraining(g: Graph, batch: Batch, headDim: number): AttendTraining {
  return (layer, x) => {
    const q = rotatedHeads(g, layer, layer.q, { x, batch, headDim })
    const k = rotatedHeads(g, layer, layer.k, { x, batch, headDim })
    const v = valuesByHead(g, project(g, layer.v, { x, headDim }), batch)
    return linear(g, layer.output, weigh(g, { v, p: probabilities(g, { q, k }, batch.mask) }, batch))
  }
}
