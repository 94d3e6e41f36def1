/**
 * Trains a model whose layers read the keys and values of one (LCKV, arXiv 2405.10637, section 3.2; attention/lckv.ts runs it).
 *
 * From an ordinary model: W_K and W_V of a layer that is read become the means over the layers that read it, those of the others
 * are left out (the authors' convert_pretrained.py). Then the condensed layers run m times without gradients, beginning with keys
 * and values of zeros, and b times with them; the loss is that of the last. A token sees only keys of tokens before it, and the
 * first one nothing: its rows see one key, for softmax wants one, and are multiplied by 0.
 *
 * The m passes read the parameters' constants, and so do the layers below them, which thus run twice: otherwise gradients would go
 * back into the passes through their inputs.
 *
 * Ours: `distil` mixes into the targets what the base says of the next token; 0, as in the paper, does not.
 */
import { groupsOf } from '../attention/lckv.ts'
import { KvasirError } from '../core/errors.ts'
import { type LayerSharing, parseLayerTypes, writeLayerTypes } from '../core/layer-types.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import { llama, type LlamaWeights } from '../models/llama.ts'
import { throughLayers } from '../models/stack.ts'
import { linear } from '../nn/linear.ts'
import type { GgufSource } from '../weights/gguf.ts'
import { sharingValues } from '../weights/gguf-sharing.ts'
import { type AttendTraining, byHead, probabilities, project, rotate, valuesByHead, weigh } from './attention.ts'
import type { Batch } from './batch.ts'
import {
  embed,
  forwardLlama,
  frozenLlama,
  logitsOf,
  NODES_PER_LAYER,
  runLayer,
  type TrainableLlama,
  trainableLlama,
} from './llama.ts'
import type { Objective } from './objective.ts'
import { type Parameters, readFloats } from './parameters.ts'
import { type TrainFiles, trainFile } from './run.ts'
import { saveModel } from './save-model.ts'
import type { TrainReport } from './train.ts'

export interface LckvOptions {
  readonly sharing: LayerSharing
  /** How W_K and W_V of a layer that is read begin: as the mean over its readers, or as they are. */
  readonly start: 'mean' | 'copy'
  /** Share of the base's probabilities in the targets, 0 … 1. */
  readonly distil: number
}

export interface LckvFiles extends TrainFiles, Omit<LayerSharing, 'reads'>, Omit<LckvOptions, 'sharing'> {
  /** As `layer_types` of LCKV's configs, e.g. `0_20x20_21`; left out, those of a model that has them. */
  readonly layers?: string | undefined
}

/** Where the base's own weights stand among the parameters. */
const TEACHER = 'base/'
const PROJECTIONS = ['attn_k', 'attn_v'] as const

/**
 * `layers` of the base, as {@link parseLayerTypes} reads them; without, those of the file, which then goes on learning.
 * Errors: `layers_unusable`.
 */
export function sharingFor(base: GgufSource, layers: string | undefined, rest: Omit<LayerSharing, 'reads'>): LayerSharing {
  const fail = (reason: string): never => {
    throw new KvasirError('layers_unusable', { reason })
  }
  const { nLayer, sharing } = llama.hyperparameters(base).shape
  if (sharing && layers !== undefined) fail('the model shares keys and values already; without --layers it goes on as it is')
  if (sharing) return { ...sharing, ...rest, forceNodiag: sharing.forceNodiag }
  if (layers === undefined) return fail(`say with --layers which of the ${nLayer} layers reads which, e.g. ${example(nLayer)}`)
  const reads = parseLayerTypes(layers, nLayer)
  if (typeof reads === 'string') return fail(reads)
  if (reads.every((target, il) => target === il)) fail('each reads itself: there is nothing to share')
  if (groupsOf(reads).length > 1) fail('there is more than one group of condensed layers, and training knows one')
  return { ...rest, reads }
}

/** The paper's sandwich of w = 2. */
function example(nLayer: number): string {
  return nLayer < 4 ? `${nLayer - 1}x${nLayer}` : `0_${nLayer - 2}x${nLayer - 2}_${nLayer - 1}`
}

/** Makes an LCKV model of another. Called again after it was stopped, it goes on. Errors: `layers_unusable`, and {@link trainFile}'s. */
export function trainLckv({
  layers,
  forceNodiag,
  forwardPasses,
  backwardPasses,
  start,
  distil,
  ...files
}: LckvFiles): Promise<TrainReport> {
  return trainFile(files, (base, parameters) => {
    const sharing = sharingFor(base, layers, { forceNodiag, forwardPasses, backwardPasses })
    const { reads, ...rest } = sharing
    return {
      objective: lckvObjective(base, parameters, { sharing, start, distil }),
      identity: { what: 'lckv', layers: writeLayerTypes(reads), ...rest, start, distil },
      save: (path) => {
        const metadata = Object.fromEntries(sharingValues(sharing))
        return saveModel(base, { path, parameters, metadata, keeps: keepsTensor(sharing) })
      },
    }
  })
}

/** Whether the model made of the base still has this tensor. */
export function keepsTensor({ reads }: LayerSharing): (name: string) => boolean {
  return (name) => {
    const [, il, at] = /^blk\.(\d+)\.(attn_[kv])\./.exec(name) ?? []
    return at === undefined || reads[Number(il)] === Number(il)
  }
}

/** The next token, all tensors of the new model learning. Errors: those of {@link trainableLlama}. */
export function lckvObjective(base: GgufSource, parameters: Parameters, options: LckvOptions): Objective {
  const { sharing, start, distil } = options
  const { shape } = llama.hyperparameters(base)
  const values = new Map(sharingValues(sharing).map(([key, { value }]) => [key, value]))
  const metadata: GgufSource['metadata'] = (key) => values.get(key) ?? base.metadata(key)
  const model = trainableLlama({ ...base, metadata }, parameters, () => true)
  if (start === 'mean' && shape.sharing === undefined) averageReaders(base, parameters, sharing.reads)

  const teacher = distil > 0 ? frozenLlama(base, parameters, TEACHER) : null
  const { nLayer, nVocab } = shape
  const nPasses = sharing.forwardPasses + sharing.backwardPasses
  const loss = (g: Graph, batch: Batch, targets: Tensor) => g.crossEntropyLoss(forwardLckv(g, model, batch), targets)
  return {
    parameters,
    nVocab,
    maxNodes: NODES_PER_LAYER * (nLayer * (nPasses + 2) + 4),
    loss(g, batch) {
      if (teacher === null) return loss(g, batch, batch.targets)
      const said = g.softMaxExt(forwardLckv(g, teacher, batch), null, 1)
      return loss(g, batch, g.add(g.scale(said, distil), g.scale(batch.targets, 1 - distil)))
    },
    measured: (g, batch) => loss(g, batch, batch.targets),
  }
}

/** W_K and W_V (and their biases) of layers that are read: the means over the layers that read them. */
function averageReaders(base: GgufSource, parameters: Parameters, reads: readonly number[]): void {
  for (const target of new Set(reads)) {
    const readers = reads.flatMap((read, il) => (read === target ? [il] : []))
    for (const at of PROJECTIONS.flatMap((name) => [`${name}.weight`, `${name}.bias`])) {
      const parameter = parameters.get(`blk.${target}.${at}`)
      if (!parameter) continue
      parameter.data.fill(0)
      for (const il of readers) {
        const info = base.tensors.get(`blk.${il}.${at}`)
        if (!info) throw new KvasirError('layers_unusable', { reason: `layer ${target} has a ${at}, and layer ${il} has none` })
        const x = readFloats(base, info)
        for (let i = 0; i < x.length; i++) parameter.data[i]! += x[i]! / readers.length
      }
    }
  }
}

interface KeysValues {
  /** f32[d, T, G · B] and f32[T, d, G · B]. */
  readonly k: Tensor
  readonly v: Tensor
}

/** Logits f32[nVocab, T · B] of a model that may share keys and values. */
export function forwardLckv(g: Graph, model: Omit<TrainableLlama, 'constants'> & Partial<TrainableLlama>, batch: Batch): Tensor {
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
    const rows = (weights: typeof layer.q) =>
      byHead(g, rotate(g, layer, { x: project(g, weights, { x, headDim }), batch }), batch)
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
