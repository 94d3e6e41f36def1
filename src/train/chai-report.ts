/** The file that a calibration writes: what a model is run with, and how that was found. */
import type { ChaiCalibration } from '../attention/share/chai/calibration.ts'
import type { ErrorCurve } from './elbow.ts'

export interface ChaiReport extends ChaiCalibration {
  readonly model: string
  readonly nHeadKv: number
  /** Clusters per KV head, over all layers. */
  readonly ratio: number
  readonly elbows: readonly number[]
  /** With 1 … G clusters, per layer: what k-means leaves of the sum of squared probabilities, as a share. */
  readonly inertia: readonly ErrorCurve[]
  /** Per layer: nats of KL(dense ‖ this layer clustered) per token; null if that was not measured. */
  readonly losses: readonly ErrorCurve[] | null
  readonly rule: string
  readonly samples: number
  readonly lossSamples: number
  readonly nTokens: number
  readonly seed: number
  readonly text: string
}
