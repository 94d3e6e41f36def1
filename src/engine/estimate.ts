/** What a model will need on this processor, told from its headers alone. */
import { attentionFor } from '../attention/spec.ts'
import type { ModelShape } from '../core/shape.ts'
import { Backend } from '../ggml/backend.ts'
import { rowBytes, typeId } from '../ggml/types.ts'
import { bytesPerToken, residentTotal } from '../kv/layout.ts'
import { architectureOf } from '../models/architectures.ts'
import type { Hyperparameters } from '../models/architecture.ts'
import type { WeightSource } from '../weights/source.ts'
import { Uploader } from '../weights/upload.ts'

export interface EstimateOptions {
  /** Context in tokens; 0 is what the model was trained for. */
  readonly nCtx: number
  readonly nUbatch: number
  readonly typeK: string
  readonly typeV: string
  /** Whether weights go into the processor's own layouts; default true, as in loading. */
  readonly repack?: boolean
}

export interface MemoryEstimate {
  readonly nCtx: number
  readonly weightBytes: number
  readonly cacheBytesPerToken: number
  /** Of one sequence that fills the context; before that, only what its tokens take. */
  readonly cacheBytes: number
  /** Scratch of the largest graph, roughly. */
  readonly computeBytes: number
  readonly totalBytes: number
}

/** Errors: `model_unsupported` and `model_invalid`, as loading would. */
export function hyperparametersOf(source: WeightSource): Hyperparameters {
  return architectureOf(source).hyperparameters(source)
}

/** Errors: `model_unsupported` and `model_invalid`, as loading would. */
export function estimateMemory(source: WeightSource, hp: Hyperparameters, options: EstimateOptions): MemoryEstimate {
  const { shape } = hp
  const nCtx = Math.min(options.nCtx || shape.nCtxTrain, shape.nPositions ?? Infinity)
  const layout = attentionFor('dense', shape).layout({ k: typeId(options.typeK), v: typeId(options.typeV) })
  const weightBytes = bytesOfWeights(source, hp, options.repack ?? true)
  const cacheBytes = residentTotal(layout, nCtx)
  const computeBytes = scratchBytes(shape, nCtx, Math.min(options.nUbatch, nCtx))
  return {
    nCtx,
    weightBytes,
    cacheBytesPerToken: bytesPerToken(layout),
    cacheBytes,
    computeBytes,
    totalBytes: weightBytes + cacheBytes + computeBytes,
  }
}

/**
 * Of the file's tensors, those that a model uses; and one of them twice if it is both looked up and multiplied by, as tied
 * embeddings are, where the processor has a layout of its own for the product.
 */
function bytesOfWeights(source: WeightSource, hp: Hyperparameters, repack: boolean): number {
  using backend = new Backend(1)
  using uploader = new Uploader(source, backend, { repack })
  architectureOf(source).build(hp, source, uploader)
  return uploader.bytes
}

/** The widest point of a prompt's graph: the feed-forward network, the mask, and one layer's values as rows. */
function scratchBytes({ nEmbd, nFf, nHeadKv, headDim, nVocab }: ModelShape, nCtx: number, nTokens: number): number {
  const activations = nTokens * (2 * nEmbd + 3 * nFf) * 4
  const mask = nTokens * nCtx * 2
  const values = rowBytes(typeId('f16'), headDim) * nHeadKv * nCtx
  return activations + mask + values + nVocab * 4
}
