/**
 * What an attention method is: what it stores, and the graph of one layer.
 *
 * A method owns its projections, for some do not compute all of them; the common pieces (project, rotate, write, read) are
 * functions to call. It creates the inputs of a graph (masks, rows) once, in `start`; they are filled anew for every
 * computation, so a graph can serve many steps.
 */
import type { ModelShape } from '../core/shape.ts'
import type { Graph } from '../ggml/graph.ts'
import type { RopeParams } from '../ggml/ops.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { CacheLayout } from '../kv/layout.ts'
import type { Linear } from '../nn/linear.ts'

/** One layer as attention sees it. */
export interface AttentionLayer {
  readonly il: number
  readonly q: Linear
  readonly k: Linear
  readonly v: Linear
  readonly output: Linear
  readonly rope: RopeParams
  /** f32[nDims / 2], or null. */
  readonly ropeFactors: Tensor | null
}

/** One sequence's share of a step: `nTokens` columns of the step from `first` on. */
export interface StepPart {
  readonly cache: SequenceCache
  readonly first: number
  readonly nTokens: number
  /** Rows a read covers: those stored so far and the new ones, rounded up to whole steps (kv/layout.ts). */
  readonly nRead: number
}

/** One forward pass being recorded. */
export interface Step {
  readonly g: Graph
  readonly shape: ModelShape
  readonly nTokens: number
  /** i32[nTokens] */
  readonly positions: Tensor
  readonly parts: readonly StepPart[]
}

/** ggml type ids of cached keys and values. */
export interface CacheTypes {
  readonly k: number
  readonly v: number
}

/** Normed residual f32[nEmbd, nTokens] → what is added to the residual, of the same shape. */
export type Attend = (layer: AttentionLayer, x: Tensor) => Tensor

export interface AttentionMethod {
  readonly name: string
  layout(shape: ModelShape, types: CacheTypes): CacheLayout
  start(step: Step): Attend
  /** Keys that the part's queries read, per layer and KV head. */
  keysRead(part: Pick<StepPart, 'cache' | 'nTokens'>): number
}

/** Keys that dense attention reads for `nTokens` queries after `nBefore` tokens, per layer and KV head. */
export function keysDense(nBefore: number, nTokens: number): number {
  return nTokens * nBefore + (nTokens * (nTokens + 1)) / 2
}
