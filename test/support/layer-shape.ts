/** The layers that attention tests compute. */
import type { LayerShape } from '../../src/core/shape.ts'
import type { LayerSharing } from '../../src/core/layer-types.ts'
import { normals } from './random.ts'

export interface TestShape {
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
  readonly sharing?: LayerSharing
  /** What layers have that others do not: windows, softcaps, other widths. */
  readonly differs?: (il: number) => Partial<LayerShape>
}

/** Width of the residual stream. */
export const N_EMBD = 48
export const ROPE_FREQ_BASE = 10_000

/** W f32[nIn, nOut]. */
export type LayerWeights = Readonly<Record<'q' | 'k' | 'v' | 'output', Float32Array>> & {
  /** f32[nHead] */
  readonly sinks?: Float32Array
}

/** Random weights of layer `il`. */
export function layerWeights({ nHead, nHeadKv, headDim }: TestShape, il: number): LayerWeights {
  const matrix = (n: number, m: number, seed: number) => normals(n * m, 4 * il + seed).map((w) => w / Math.sqrt(n))
  return {
    q: matrix(N_EMBD, nHead * headDim, 1),
    k: matrix(N_EMBD, nHeadKv * headDim, 2),
    v: matrix(N_EMBD, nHeadKv * headDim, 3),
    output: matrix(nHead * headDim, N_EMBD, 4),
  }
}
