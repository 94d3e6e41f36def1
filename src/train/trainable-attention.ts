/**
 * Attention over whole sequences of equal length, from operations that have gradients; the pieces, and the dense layer made of
 * them. Shapes: d = dK or dV, H = nHead, G = nHeadKv, T = tokens of a sequence, B = sequences.
 *
 * The sequences of a batch lie beside each other in the dimension of the heads, `[d, T, H · B]`: query head h of sequence b is
 * number b · H + h, its KV head number b · G + h / g, so that ggml's repetition of KV heads is right for all of them, and
 * dimension 3 stays 1, as the gradient of a repeated product demands.
 */
import type { AttentionLayer } from '../attention/method.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { linear } from '../nn/linear.ts'
import type { Batch } from './batch.ts'

/** Queries or keys, f32[d, heads, T · B] → f32[d, T, heads · B]. */
export function byHead(g: Graph, x: Tensor, { nTokens, nSequences }: Batch): Tensor {
  const [d, heads] = x.ne
  const split = g.reshape(x, d, heads, nTokens, nSequences)
  return g.reshape(g.cont(g.permute(split, 0, 2, 1, 3)), d, nTokens, heads * nSequences)
}

interface Input {
  /** f32[nEmbd, T · B] */
  readonly x: Tensor
  readonly batch: Batch
}

/** Queries or keys of a layer, rotated: f32[d, T, heads · B]. */
export function rotatedHeads(g: Graph, layer: AttentionLayer, which: 'q' | 'k', { x, batch }: Input): Tensor {
  return byHead(g, layer.rotate(g, layer.project(g, x, which), batch.positions), batch)
}

/** Values of a layer, f32[T, d, G · B], to be weighed by probabilities over T. */
export function valuesByHead(g: Graph, layer: AttentionLayer, { x, batch }: Input): Tensor {
  const { nTokens, nSequences } = batch
  const v = layer.project(g, x, 'v')
  const [d, heads] = v.ne
  const split = g.reshape(v, d, heads, nTokens, nSequences)
  return g.reshape(g.cont(g.permute(split, 1, 2, 0, 3)), nTokens, d, heads * nSequences)
}

interface QueriesKeys {
  /** f32[d, T, H · B] and f32[d, T, G · B]. */
  readonly q: Tensor
  readonly k: Tensor
}

/** softmax(scale · k · q + mask): f32[T, T, H · B], over keys in dimension 0. */
export function probabilities(g: Graph, { scale }: AttentionLayer, { q, k }: QueriesKeys, mask: Tensor): Tensor {
  return g.softMaxExt(g.mulMat(k, q), mask, scale)
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
export function denseTraining(g: Graph, batch: Batch): AttendTraining {
  return (layer, x) => {
    const input = { x, batch }
    const [q, k] = [rotatedHeads(g, layer, 'q', input), rotatedHeads(g, layer, 'k', input)]
    const p = probabilities(g, layer, { q, k }, batch.mask)
    return linear(g, layer.output, weigh(g, { v: valuesByHead(g, layer, input), p }, batch))
  }
}
