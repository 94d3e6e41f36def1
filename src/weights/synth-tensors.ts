/** The tensors of a model of random weights: GGUF's names, and what each is filled with. */
import type { SynthShape } from './synth-shapes.ts'

/**
 * What a tensor is filled with: `matrix` and `tokens` in the file's type, the others f32.
 *
 * Embeddings are large beside what the layers add, and an output of its own holds the same values: so the most likely token
 * stands well apart from the rest, and two engines that differ in rounding agree on it. The small output norm keeps the other
 * logits as close together as a real model's.
 */
export type SynthFill = 'matrix' | 'tokens' | 'positions' | 'norm' | 'post-norm' | 'output-norm' | 'bias' | 'rope'

export interface SynthTensor {
  readonly name: string
  readonly ne: readonly number[]
  readonly fill: SynthFill
}

/** What the layers of an architecture have beside the matrices that all of them have. */
interface Layers {
  /** A norm for each head's query and key. */
  readonly headNorms: boolean
  /** Norms of what attention and feed-forward give, before it is added. */
  readonly postNorms: boolean
  readonly gate: boolean
  /** Biases of every matrix and norm. */
  readonly biases: boolean
}

const PLAIN: Layers = { headNorms: false, postNorms: false, gate: true, biases: false }
const LAYERS: Readonly<Record<SynthShape['arch'], Layers>> = {
  llama: PLAIN,
  qwen3: { ...PLAIN, headNorms: true },
  gemma3: { ...PLAIN, headNorms: true, postNorms: true },
  // No converter and no libllama knows `opt`, so these names are ours: those that gguf-py gives the same parts of GPT-2.
  opt: { ...PLAIN, gate: false, biases: true },
}

/** GGUF's names and shapes, `[in, out]`. */
export function synthTensors(shape: SynthShape): SynthTensor[] {
  const { nLayer, nEmbd, nHead, nHeadKv, headDim, nFf, nVocab } = shape
  const { headNorms, postNorms, gate, biases } = LAYERS[shape.arch]
  const tensors: SynthTensor[] = []
  const add = (name: string, fill: SynthFill, ...ne: number[]) => tensors.push({ name, fill, ne })
  const matrix = (name: string, nIn: number, nOut: number, bias = biases) => {
    add(`${name}.weight`, 'matrix', nIn, nOut)
    if (bias) add(`${name}.bias`, 'bias', nOut)
  }
  const norm = (name: string, n = nEmbd, fill: SynthFill = 'norm') => {
    add(`${name}.weight`, fill, n)
    if (biases) add(`${name}.bias`, 'bias', n)
  }

  add('token_embd.weight', 'tokens', nEmbd, nVocab)
  // Position p is row p: the two rows that OPT's own table begins with and never reads are left out.
  if (shape.ropeTheta === null) add('position_embd.weight', 'positions', nEmbd, shape.nCtxTrain)
  if (shape.scaling) add('rope_freqs.weight', 'rope', headDim / 2)
  for (let layer = 0; layer < nLayer; layer++) {
    const blk = `blk.${layer}.`
    const hasOwn = (shape.sharing?.reads[layer] ?? layer) === layer
    const qkvBias = biases || shape.qkvBias
    norm(`${blk}attn_norm`)
    matrix(`${blk}attn_q`, nEmbd, nHead * headDim, qkvBias)
    if (hasOwn) matrix(`${blk}attn_k`, nEmbd, nHeadKv * headDim, qkvBias)
    if (hasOwn) matrix(`${blk}attn_v`, nEmbd, nHeadKv * headDim, qkvBias)
    if (headNorms) norm(`${blk}attn_q_norm`, headDim)
    if (headNorms) norm(`${blk}attn_k_norm`, headDim)
    matrix(`${blk}attn_output`, nHead * headDim, nEmbd)
    if (postNorms) norm(`${blk}post_attention_norm`, nEmbd, 'post-norm')
    norm(`${blk}ffn_norm`)
    if (gate) matrix(`${blk}ffn_gate`, nEmbd, nFf)
    matrix(`${blk}ffn_up`, nEmbd, nFf)
    matrix(`${blk}ffn_down`, nFf, nEmbd)
    if (postNorms) norm(`${blk}post_ffw_norm`, nEmbd, 'post-norm')
  }
  norm('output_norm', nEmbd, 'output-norm')
  if (!shape.tied) add('output.weight', 'tokens', nEmbd, nVocab)
  return tensors
}

/** Per pair of dimensions, what Llama 3.1 divides the rotation's frequency by: long wavelengths are slowed down, short ones kept. */
export function ropeDivisors({ headDim, ropeTheta, scaling }: SynthShape): Float32Array {
  const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling!
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * ropeTheta! ** ((2 * i) / headDim)
    const turns = originalContext / wavelength
    if (turns > highFreqFactor) return 1
    if (turns < lowFreqFactor) return factor
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / ((1 - smooth) / factor + smooth)
  })
}
