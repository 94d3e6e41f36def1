/** Shapes of models people run, for files of random weights: what is in their config.json. */
import type { ModelShape } from '../core/shape.ts'

/** Llama 3's RoPE scaling, which GGUF stores as a tensor of divisors. */
interface Llama3Scaling {
  readonly factor: number
  readonly lowFreqFactor: number
  readonly highFreqFactor: number
  readonly originalContext: number
}

export interface SynthShape extends Omit<ModelShape, 'layers'> {
  readonly arch: 'llama' | 'qwen3' | 'gemma3' | 'opt'
  /** null: positions are learned, not rotated. */
  readonly ropeTheta: number | null
  readonly normEps: number
  /** The output matrix is the token embedding. */
  readonly tied: boolean
  /** q, k and v have biases. */
  readonly qkvBias: boolean
  readonly scaling: Llama3Scaling | null
  /** Tokens that sliding layers read; absent if none slides. */
  readonly window?: number
}

const shape = (
  name: string,
  numbers: Omit<SynthShape, 'arch' | 'qkvBias' | 'scaling'> & Partial<SynthShape>,
): [string, SynthShape] => [name, { arch: 'llama', qkvBias: false, scaling: null, ...numbers }]

export const SYNTH_SHAPES: ReadonlyMap<string, SynthShape> = new Map([
  shape('tinyllama-1.1b', {
    nLayer: 22,
    nEmbd: 2048,
    nHead: 32,
    nHeadKv: 4,
    headDim: 64,
    nFf: 5632,
    nVocab: 32_000,
    nCtxTrain: 2048,
    ropeTheta: 10_000,
    normEps: 1e-5,
    tied: false,
  }),
  shape('llama-3.2-1b', {
    nLayer: 16,
    nEmbd: 2048,
    nHead: 32,
    nHeadKv: 8,
    headDim: 64,
    nFf: 8192,
    nVocab: 128_256,
    nCtxTrain: 131_072,
    ropeTheta: 500_000,
    normEps: 1e-5,
    tied: true,
    scaling: { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 },
  }),
  // Its architecture is qwen2, which is llama with these biases; written as llama, so that both engines run it as such.
  shape('qwen2.5-0.5b', {
    nLayer: 24,
    nEmbd: 896,
    nHead: 14,
    nHeadKv: 2,
    headDim: 64,
    nFf: 4864,
    nVocab: 151_936,
    nCtxTrain: 32_768,
    ropeTheta: 1_000_000,
    normEps: 1e-6,
    tied: true,
    qkvBias: true,
  }),
  shape('smollm2-135m', {
    nLayer: 30,
    nEmbd: 576,
    nHead: 9,
    nHeadKv: 3,
    headDim: 64,
    nFf: 1536,
    nVocab: 49_152,
    nCtxTrain: 8192,
    ropeTheta: 100_000,
    normEps: 1e-5,
    tied: true,
  }),
  shape('llama-7b', {
    nLayer: 32,
    nEmbd: 4096,
    nHead: 32,
    nHeadKv: 32,
    headDim: 128,
    nFf: 11_008,
    nVocab: 32_000,
    nCtxTrain: 4096,
    ropeTheta: 10_000,
    normEps: 1e-5,
    tied: false,
  }),
  shape('qwen3-0.6b', {
    arch: 'qwen3',
    nLayer: 28,
    nEmbd: 1024,
    nHead: 16,
    nHeadKv: 8,
    headDim: 128,
    nFf: 3072,
    nVocab: 151_936,
    nCtxTrain: 40_960,
    ropeTheta: 1_000_000,
    normEps: 1e-6,
    tied: true,
  }),
  shape('gemma3-270m', {
    arch: 'gemma3',
    nLayer: 18,
    nEmbd: 640,
    nHead: 4,
    nHeadKv: 1,
    headDim: 256,
    nFf: 2048,
    nVocab: 262_144,
    nCtxTrain: 32_768,
    ropeTheta: 1_000_000,
    normEps: 1e-6,
    tied: true,
    window: 512,
  }),
  shape('gemma3-1b', {
    arch: 'gemma3',
    nLayer: 26,
    nEmbd: 1152,
    nHead: 4,
    nHeadKv: 1,
    headDim: 256,
    nFf: 6912,
    nVocab: 262_144,
    nCtxTrain: 32_768,
    ropeTheta: 1_000_000,
    normEps: 1e-6,
    tied: true,
    window: 512,
  }),
  shape('opt-125m', {
    arch: 'opt',
    nLayer: 12,
    nEmbd: 768,
    nHead: 12,
    nHeadKv: 12,
    headDim: 64,
    nFf: 3072,
    nVocab: 50_272,
    nCtxTrain: 2048,
    ropeTheta: null,
    normEps: 1e-5,
    tied: true,
  }),
])
