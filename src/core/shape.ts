/** What attention, cache and planner need to know of a model: numbers that stand in its files, and no weights. */
import type { LayerSharing } from './layer-types.ts'

/** Which keys a query of a layer sees: all up to its own, those before its own, or the last `window` up to its own. */
export type Visibility = 'causal' | 'strict' | { readonly window: number }

/** One layer of attention. */
export interface LayerShape {
  readonly il: number
  /** The layer whose keys and values it reads: itself, or another that it shares with. */
  readonly kvSource: number
  readonly nHead: number
  /** KV heads; equal to `nHead` for MHA, a divisor of it for GQA. */
  readonly nHeadKv: number
  /** Elements of a key, and of a value. */
  readonly dK: number
  readonly dV: number
  /** What products of queries and keys are multiplied by. */
  readonly scale: number
  /** Scores become softcap · tanh(score / softcap); null for none. */
  readonly softcap: number | null
  readonly visible: Visibility
}

/** Counts are per model unless they say otherwise. */
export interface ModelShape {
  /** GGUF's `general.architecture`, e.g. `llama`. */
  readonly arch: string
  readonly nLayer: number
  /** Width of the residual stream. */
  readonly nEmbd: number
  /** Of its widest layer of attention, as are the next two; {@link layers} has each. */
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
  /** Inner width of the feed-forward network. */
  readonly nFf: number
  readonly nVocab: number
  /** Positions the model was trained for. */
  readonly nCtxTrain: number
  /** Positions there are, where they are learned: there is nothing beyond. */
  readonly nPositions?: number
  readonly layers: readonly LayerShape[]
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
  /** Files that a setting may name: the paths of adapters and calibrations, by their names. */
  readonly resources: Readonly<Record<string, string>>
  /** False for settings of strangers: they may not name paths. */
  readonly takesPaths: boolean
}

/** What layers have that do not say otherwise. */
export function layerShapes(
  shape: Omit<ModelShape, 'layers'>,
  differs: (il: number) => Partial<LayerShape> = () => ({}),
): LayerShape[] {
  const { nLayer, nHead, nHeadKv, headDim, sharing } = shape
  return Array.from({ length: nLayer }, (_, il) => {
    const kvSource = sharing?.reads[il] ?? il
    const visible = kvSource > il || sharing?.forceNodiag ? ('strict' as const) : ('causal' as const)
    const widths = { dK: headDim, dV: headDim, scale: 1 / Math.sqrt(headDim) }
    return { il, kvSource, nHead, nHeadKv, ...widths, softcap: null, visible, ...differs(il) }
  })
}

/** The window of a layer, or Infinity. */
export function windowOf({ visible }: Pick<LayerShape, 'visible'>): number {
  return typeof visible === 'object' ? visible.window : Infinity
}
