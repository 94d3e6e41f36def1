/** The layers that attention tests compute. */
import { type LayerShape, layerShapes, type ModelShape } from '../../src/core/shape.ts'
import type { LayerSharing } from '../../src/core/layer-types.ts'
import { normals } from './random.ts'

export interface TestShape {
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
  readonly sharing?: LayerSharing
  /** What layers have that others do not: windows, softcaps, other widths. */
  readonly differs?: (il: number) => Partial<LayerShape>
  /** Heads have scores that belong to no key. */
  readonly sinks?: true
}

/** Width of the residual stream. */
export const N_EMBD = 48
export const ROPE_FREQ_BASE = 10_000

/** W f32[nIn, nOut]. */
export type LayerWeights = Readonly<Record<'q' | 'k' | 'v' | 'output', Float32Array>> & {
  /** f32[nHead] */
  readonly sinks?: Float32Array
}

/** A model of `nLayer` such layers. */
export function modelOf({ nHead, nHeadKv, headDim, sharing, differs }: TestShape, nLayer: number): ModelShape {
  const sizes = { nLayer, nEmbd: N_EMBD, nHead, nHeadKv, headDim, nFf: 1, nVocab: 1, nCtxTrain: 4096 }
  const model = { arch: 'test', ...sizes, ...(sharing && { sharing }) }
  return { ...model, layers: layerShapes(model, differs) }
}

/** Random weights of layer `il`. */
export function layerWeights(shape: TestShape, il: number): LayerWeights {
  const { nHead, nHeadKv, dK, dV } = modelOf(shape, il + 1).layers[il]!
  const matrix = (n: number, m: number, seed: number) => normals(n * m, 4 * il + seed).map((w) => w / Math.sqrt(n))
  return {
    q: matrix(N_EMBD, nHead * dK, 1),
    k: matrix(N_EMBD, nHeadKv * dK, 2),
    v: matrix(N_EMBD, nHeadKv * dV, 3),
    output: matrix(nHead * dV, N_EMBD, 4),
    ...(shape.sinks && { sinks: normals(nHead, 1000 + il) }),
  }
}
