/**
 * The forward pass of a llama whose layers read the keys and values of others, for training (LCKV, arXiv 2405.10637, section 3.2).
 *
 * A group of condensed layers runs m times without gradients, beginning with keys and values of zeros, and b times with them.
 * There a token sees only keys of tokens before it, and the first one nothing: its rows see one key, for softmax wants one, and
 * are multiplied by 0.
 *
 * The m passes read the parameters' constants, and so do the layers below them, which thus run twice: otherwise gradients would go
 * back into the passes through their inputs.
 */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import { type Decoder, embed } from '../models/decoder.ts'
import { groupsOf, throughLayers } from '../models/stack.ts'
import { linear } from '../nn/linear.ts'
import { type AttendTraining, probabilities, rotatedHeads, valuesByHead, weigh } from './trainable-attention.ts'
import type { Batch } from './batch.ts'
import { forwardLlama, logitsOf, runLayer, type TrainableLlama } from './trainable-llama.ts'

/** Without constants, all passes have gradients. */
type Shared = Omit<TrainableLlama, 'constants'> & Partial<TrainableLlama>

interface KeysValues {
  /** f32[d, T, G · B] and f32[T, d, G · B]. */
  readonly k: Tensor
  readonly v: Tensor
}

/** Logits f32[nVocab, T · B] of a model that may share keys and values. */
export function forwardLckv(g: Graph, model: Shared, batch: Batch): Tensor {
  const { hp, weights, constants = weights } = model
  const { sharing, nLayer } = hp.shape
  if (!sharing) return forwardLlama(g, model, { batch })
  const attend = sharedAttention(g, batch)
  const through = (decoder: Decoder, nPasses: number, nLayers: number) => {
    const layers = decoder.layers.slice(0, nLayers)
    const run = (il: number, x: Tensor) => runLayer(g, layers[il]!, { x, attend })
    return throughLayers(
      layers.map(({ attention }) => attention),
      { nPasses, x: embed(g, decoder, batch), run },
    )
  }
  const last = groupsOf(sharing.reads)[0]?.last
  if (last !== undefined) through(constants, sharing.forwardPasses, last + 1)
  return logitsOf(g, weights, through(weights, sharing.backwardPasses, nLayer))
}

/** Attention to the keys and values that were made last of the layer that is read; zeros before the first. */
function sharedAttention(g: Graph, batch: Batch): AttendTraining {
  const { nTokens, nSequences } = batch
  const strict = strictInputs(g, batch)
  const zeros = (...ne: number[]) => g.once(`zeros:${ne.join()}`, () => g.input(F32, ne, (data) => data.fill(0)))
  const made = new Map<number, KeysValues>()
  return (layer, x) => {
    const { il, kvSource, dK, dV, nHeadKv } = layer
    const input = { x, batch }
    if (kvSource === il) made.set(il, { k: rotatedHeads(g, layer, 'k', input), v: valuesByHead(g, layer, input) })
    const heads = nHeadKv * nSequences
    const { k, v } = made.get(kvSource) ?? { k: zeros(dK, nTokens, heads), v: zeros(nTokens, dV, heads) }
    const isStrict = layer.visible === 'strict'
    const q = rotatedHeads(g, layer, 'q', input)
    const p = probabilities(g, layer, { q, k }, isStrict ? strict.mask : batch.mask)
    const o = weigh(g, { v, p }, batch)
    return linear(g, layer.output, isStrict ? g.mul(o, strict.isThere) : o)
  }
}

/** A mask f32[T, T] of keys before each query, the first query seeing its own, and f32[1, T · B]: 0 for first queries, else 1. */
function strictInputs(g: Graph, { nTokens, nSequences }: Batch): { readonly mask: Tensor; readonly isThere: Tensor } {
  const mask = g.input(F32, [nTokens, nTokens], (data) => {
    data.fill(-Infinity)
    for (let i = 0; i < nTokens; i++) data.fill(0, i * nTokens, i * nTokens + Math.max(1, i))
  })
  const isThere = g.input(F32, [1, nTokens * nSequences], (data) => {
    data.fill(1)
    for (let b = 0; b < nSequences; b++) data[b * nTokens] = 0
  })
  return { mask, isThere }
}
