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
import { groupsOf } from '../attention/lckv.ts'
import type { LayerSharing } from '../core/layer-types.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { LlamaWeights } from '../models/llama.ts'
import { throughLayers } from '../models/stack.ts'
import { linear } from '../nn/linear.ts'
import { type AttendTraining, probabilities, project, rotatedHeads, valuesByHead, weigh } from './trainable-attention.ts'
import type { Batch } from './batch.ts'
import { embed, forwardLlama, logitsOf, runLayer, type TrainableLlama } from './trainable-llama.ts'

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
  const { nLayer, sharing } = hp.shape
  if (!sharing) return forwardLlama(g, model, { batch })
  const attend = sharedAttention(g, { batch, headDim: hp.shape.headDim, sharing, nHeadKv: hp.shape.nHeadKv })
  const through = (w: LlamaWeights, passes: number, upTo: number) =>
    throughLayers(
      upTo,
      groupsOf(sharing.reads).map((group) => ({ ...group, passes })),
      { x: embed(g, w, batch), run: (il, x) => runLayer(g, w.layers[il]!, { x, attend }) },
    )
  const last = groupsOf(sharing.reads)[0]?.last
  if (last !== undefined) through(constants, sharing.forwardPasses, last + 1)
  return logitsOf(g, weights, through(weights, sharing.backwardPasses, nLayer))
}

interface SharedOptions {
  readonly batch: Batch
  readonly headDim: number
  readonly nHeadKv: number
  readonly sharing: LayerSharing
}

/** Attention to the keys and values that were made last of the layer that is read; zeros before the first. */
function sharedAttention(g: Graph, { batch, headDim, nHeadKv, sharing }: SharedOptions): AttendTraining {
  const { reads, forceNodiag } = sharing
  const { nTokens, nSequences } = batch
  const strict = strictInputs(g, batch)
  const zeros = (...ne: number[]) => g.input(F32, ne, (data) => data.fill(0))
  const nothing = { k: zeros(headDim, nTokens, nHeadKv * nSequences), v: zeros(nTokens, headDim, nHeadKv * nSequences) }
  const made = new Map<number, KeysValues>()
  return (layer, x) => {
    const { il } = layer
    const target = reads[il]!
    const rows = (weights: typeof layer.q) => rotatedHeads(g, layer, weights, { x, batch, headDim })
    if (target === il) made.set(il, { k: rows(layer.k), v: valuesByHead(g, project(g, layer.v, { x, headDim }), batch) })
    const { k, v } = made.get(target) ?? nothing
    const isStrict = target > il || forceNodiag
    const p = probabilities(g, { q: rows(layer.q), k }, isStrict ? strict.mask : batch.mask)
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
