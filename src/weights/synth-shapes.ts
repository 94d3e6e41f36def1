/** Shapes of models people run, for files of random weights: what is in their config.json, and the tensors that follow. */
import type { ModelShape } from '../core/shape.ts'

/** Llama 3's RoPE scaling, which GGUF stores as a tensor of divisors. */
interface Llama3Scaling {
  readonly factor: number
  readonly lowFreqFactor: number
  readonly highFreqFactor: number
  readonly originalContext: number
}

export interface SynthShape extends Omit<ModelShape, 'layers'> {
  readonly ropeTheta: number
  readonly rmsNormEps: number
  /** The output matrix is the token embedding. */
  readonly tied: boolean
  /** q, k and v have biases. */
  readonly qkvBias: boolean
  readonly scaling: Llama3Scaling | null
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
    rmsNormEps: 1e-5,
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
    rmsNormEps: 1e-5,
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
    rmsNormEps: 1e-6,
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
    rmsNormEps: 1e-5,
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
    rmsNormEps: 1e-5,
    tied: false,
  }),
])

/**
 * What a tensor is filled with: `matrix` and `tokens` in the file's type, the others f32.
 *
 * Embeddings are large beside what the layers add, and an output of its own holds the same values: so the most likely token
 * stands well apart from the rest, and two engines that differ in rounding agree on it. The small output norm keeps the other
 * logits as close together as a real model's.
 */
export interface SynthTensor {
  readonly name: string
  readonly ne: readonly number[]
  readonly fill: 'matrix' | 'tokens' | 'norm' | 'output-norm' | 'bias' | 'rope'
}

/** GGUF's names and shapes, `[in, out]`. */
export function synthTensors(shape: SynthShape): SynthTensor[] {
  const { nLayer, nEmbd, nHead, nHeadKv, headDim, nFf, nVocab } = shape
  const tensors: SynthTensor[] = []
  const add = (name: string, fill: SynthTensor['fill'], ...ne: number[]) => tensors.push({ name, fill, ne })
  add('token_embd.weight', 'tokens', nEmbd, nVocab)
  if (shape.scaling) add('rope_freqs.weight', 'rope', headDim / 2)
  for (let layer = 0; layer < nLayer; layer++) {
    const blk = `blk.${layer}.`
    add(`${blk}attn_norm.weight`, 'norm', nEmbd)
    const hasOwn = (shape.sharing?.reads[layer] ?? layer) === layer
    for (const [name, n] of [
      ['q', nHead * headDim],
      ['k', nHeadKv * headDim],
      ['v', nHeadKv * headDim],
    ] as const) {
      if (name !== 'q' && !hasOwn) continue
      add(`${blk}attn_${name}.weight`, 'matrix', nEmbd, n)
      if (shape.qkvBias) add(`${blk}attn_${name}.bias`, 'bias', n)
    }
    add(`${blk}attn_output.weight`, 'matrix', nHead * headDim, nEmbd)
    add(`${blk}ffn_norm.weight`, 'norm', nEmbd)
    add(`${blk}ffn_gate.weight`, 'matrix', nEmbd, nFf)
    add(`${blk}ffn_up.weight`, 'matrix', nEmbd, nFf)
    add(`${blk}ffn_down.weight`, 'matrix', nFf, nEmbd)
  }
  add('output_norm.weight', 'output-norm', nEmbd)
  if (!shape.tied) add('output.weight', 'tokens', nEmbd, nVocab)
  return tensors
}

/** Per pair of dimensions, what Llama 3.1 divides the rotation's frequency by: long wavelengths are slowed down, short ones kept. */
export function ropeDivisors({ headDim, ropeTheta, scaling }: SynthShape): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling!
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta ** ((2 * i) / headDim)
    const turns = originalContext / wavelength
    if (turns > highFreqFactor) return 1
    if (turns < lowFreqFactor) return factor
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / ((1 - smooth) / factor + smooth)
  })
}
