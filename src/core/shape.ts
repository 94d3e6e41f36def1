/** What attention, cache and planner need to know of a model. Counts are per model unless they say otherwise. */
import type { LayerSharing } from './layer-types.ts'

export interface ModelShape {
  /** GGUF's `general.architecture`, e.g. `llama`. */
  readonly arch: string
  readonly nLayer: number
  /** Width of the residual stream. */
  readonly nEmbd: number
  readonly nHead: number
  /** KV heads; equal to `nHead` for MHA, a divisor of it for GQA. */
  readonly nHeadKv: number
  /** Elements per head, the same for K and V. */
  readonly headDim: number
  /** Inner width of the feed-forward network. */
  readonly nFf: number
  readonly nVocab: number
  /** Positions the model was trained for. */
  readonly nCtxTrain: number
  /** There if layers read each other's keys and values. */
  readonly sharing?: LayerSharing
  /** The loaded model itself, for methods that were calibrated or trained for it; shapes without weights have none. */
  readonly base?: BaseModel
}

export interface BaseModel {
  /** The .gguf file or the folder. */
  readonly path: string
  /** Tells it from others (weights/fingerprint.ts); takes milliseconds the first time. */
  readonly fingerprint: string
}
