/**
 * Rotary position embedding: parameters of ggml's `rope_ext` from the ways models describe theirs.
 * Linear scaling divides positions, YaRN mixes divided and original frequencies (arXiv 2309.00071), Llama 3 divides each
 * frequency by a factor of its own, which files carry as a tensor or as four numbers.
 */
import type { RopeParams } from '../ggml/ops.ts'

export type RopeScaling =
  | { readonly type: 'none' }
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'yarn'
      readonly factor: number
      readonly nCtxOrig: number
      /** On top of what YaRN prescribes for `factor`; 1 leaves that alone. */
      readonly attnFactor: number
      readonly betaFast: number
      readonly betaSlow: number
    }
  | {
      readonly type: 'llama3'
      readonly factor: number
      readonly lowFreqFactor: number
      readonly highFreqFactor: number
      readonly nCtxOrig: number
    }

export interface Rope {
  readonly mode: RopeParams['mode']
  readonly nDims: number
  readonly freqBase: number
  readonly nCtxTrain: number
  readonly scaling: RopeScaling
}

export function ropeParams({ mode, nDims, freqBase, nCtxTrain, scaling }: Rope): RopeParams {
  const plain: RopeParams = {
    mode,
    nDims,
    nCtxOrig: nCtxTrain,
    freqBase,
    freqScale: 1,
    extFactor: 0,
    attnFactor: 1,
    betaFast: 32,
    betaSlow: 1,
  }
  if (scaling.type === 'linear') return { ...plain, freqScale: 1 / scaling.factor }
  if (scaling.type !== 'yarn') return plain // llama3 works through frequency factors alone
  const { factor, nCtxOrig, attnFactor, betaFast, betaSlow } = scaling
  return { ...plain, nCtxOrig, freqScale: 1 / factor, extFactor: 1, attnFactor, betaFast, betaSlow }
}

/** Llama 3's divisors per frequency, f32[nDims / 2]: long waves are stretched by `factor`, short ones kept, with a ramp between. */
export function llama3Factors({ nDims, freqBase }: Rope, scaling: Extract<RopeScaling, { type: 'llama3' }>): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, nCtxOrig } = scaling
  return Float32Array.from({ length: nDims / 2 }, (_, i) => {
    const waves = (nCtxOrig * freqBase ** ((-2 * i) / nDims)) / (2 * Math.PI) // full turns within the original context
    if (waves > highFreqFactor) return 1
    if (waves < lowFreqFactor) return factor
    const smooth = (waves - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / ((1 - smooth) / factor + smooth)
  })
}
