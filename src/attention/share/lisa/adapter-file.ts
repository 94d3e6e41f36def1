/**
 * What LiSA learns for a model, as a GGUF file: metadata (the base's fingerprint, the rank) and six tensors for each layer that
 * it replaces. Shapes: H = nHead, G = nHeadKv, r = rank, m = inner width of the network.
 */
import type { ModelShape } from '../../../core/shape.ts'
import type { RopeParams } from '../../../ggml/ops.ts'
import type { GgufValue } from '../../../weights/gguf-values.ts'

export const LISA_ARCHITECTURE = 'kvasir-lisa'
export const LISA_KEYS = { base: 'lisa.base', rank: 'lisa.rank', hidden: 'lisa.hidden', layers: 'lisa.layers' } as const

export interface LisaSizes {
  readonly rank: number
  /** m, 0 … */
  readonly hidden: number
}

type Heads = Pick<ModelShape, 'nEmbd' | 'nHead' | 'nHeadKv'>

/** Tensors of a layer, as files have them and training makes them. */
export interface LisaShapes {
  /** [nEmbd, H · r] and [nEmbd, G · r]. */
  readonly q: readonly number[]
  readonly k: readonly number[]
  /** A: [H, H]. */
  readonly align: readonly number[]
  /** W1: [H, m], and W2: [m, H]. */
  readonly inner: readonly number[]
  readonly outer: readonly number[]
  /** [r / 2]: tokens in which a rotary pair turns by one radian; infinite for one that does not turn. */
  readonly period: readonly number[]
}

export type LisaTensor = keyof LisaShapes

/** Those there are: without inner width there is no network, and scores are aligned by A alone. */
export function lisaTensors({ hidden }: LisaSizes): readonly LisaTensor[] {
  return ['q', 'k', 'align', ...(hidden > 0 ? (['inner', 'outer'] as const) : []), 'period']
}

export function lisaShapes({ nEmbd, nHead, nHeadKv }: Heads, { rank, hidden }: LisaSizes): LisaShapes {
  return {
    q: [nEmbd, nHead * rank],
    k: [nEmbd, nHeadKv * rank],
    align: [nHead, nHead],
    inner: [nHead, hidden],
    outer: [hidden, nHead],
    period: [rank / 2],
  }
}

export function lisaName(il: number, tensor: LisaTensor): string {
  return `blk.${il}.lisa_${tensor}.weight`
}

export function lisaMetadata(base: string, { rank, hidden }: LisaSizes, layers: readonly number[]): [string, GgufValue][] {
  return [
    ['general.architecture', { kind: 'str', value: LISA_ARCHITECTURE }],
    [LISA_KEYS.base, { kind: 'str', value: base }],
    [LISA_KEYS.rank, { kind: 'u32', value: rank }],
    [LISA_KEYS.hidden, { kind: 'u32', value: hidden }],
    [LISA_KEYS.layers, { kind: 'u32[]', value: layers }],
  ]
}

/** Neighbouring pairs, each turned as far as its period says: theta = position / period. The rest belongs to other kinds of rotation. */
export function lisaRope(rank: number): RopeParams {
  const others = { nCtxOrig: 4096, extFactor: 0, attnFactor: 1, betaFast: 32, betaSlow: 1 }
  return { mode: 0, nDims: rank, freqBase: 1, freqScale: 1, ...others }
}
