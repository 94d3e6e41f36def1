/** What a model will need, told from its headers alone. */
import { attentionFor } from '../attention/spec.ts'
import type { ModelShape } from '../core/shape.ts'
import { rowBytes, typeId } from '../ggml/types.ts'
import { bytesPerToken, residentTotal } from '../kv/layout.ts'
import { architectureOf } from '../models/registry.ts'
import type { Hyperparameters } from '../models/model.ts'
import type { WeightSource } from '../weights/source.ts'

export interface EstimateOptions {
  /** Context in tokens; 0 is what the model was trained for. */
  readonly nCtx: number
  readonly nUbatch: number
  readonly typeK: string
  readonly typeV: string
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

export function estimateMemory(source: WeightSource, shape: ModelShape, options: EstimateOptions): MemoryEstimate {
  const nCtx = options.nCtx || shape.nCtxTrain
  const layout = attentionFor('dense', shape).layout({ k: typeId(options.typeK), v: typeId(options.typeV) })
  const weightBytes = [...source.tensors.values()].reduce((sum, { nBytes }) => sum + nBytes, 0)
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

/** The widest point of a prompt's graph: the feed-forward network, the mask, and one layer's values as rows. */
function scratchBytes({ nEmbd, nFf, nHeadKv, headDim, nVocab }: ModelShape, nCtx: number, nTokens: number): number {
  const activations = nTokens * (2 * nEmbd + 3 * nFf) * 4
  const mask = nTokens * nCtx * 2
  const values = rowBytes(typeId('f16'), headDim) * nHeadKv * nCtx
  return activations + mask + values + nVocab * 4
}
