/** The metadata of a model of random weights: its architecture's keys, and the tokenizer of another file. */
import { KvasirError } from '../core/errors.ts'
import { openGguf } from './gguf.ts'
import { sharingValues } from './gguf-sharing.ts'
import type { GgufValue } from './gguf-values.ts'
import type { SynthShape } from './synth-shapes.ts'

const TOKEN_TYPE_UNUSED = 5
const u32 = (value: number): GgufValue => ({ kind: 'u32', value })
const f32 = (value: number): GgufValue => ({ kind: 'f32', value })
const str = (value: string): GgufValue => ({ kind: 'str', value })

/** `fileType` is llama.cpp's `general.file_type`. */
export function modelValues(shape: SynthShape, like: string, fileType: number): [string, GgufValue][] {
  const { arch } = shape
  return [
    ['general.architecture', str(arch)],
    ['general.name', str(`${like} (random weights)`)],
    ['general.file_type', u32(fileType)],
    ['general.quantization_version', u32(2)],
    ...architectureValues(shape).map(([key, value]): [string, GgufValue] => [`${arch}.${key}`, value]),
    ...(shape.sharing ? sharingValues(shape.sharing) : []),
  ]
}

function architectureValues(shape: SynthShape): [string, GgufValue][] {
  const { arch, ropeTheta, window } = shape
  return [
    ['vocab_size', u32(shape.nVocab)],
    ['context_length', u32(shape.nCtxTrain)],
    ['embedding_length', u32(shape.nEmbd)],
    ['block_count', u32(shape.nLayer)],
    ['feed_forward_length', u32(shape.nFf)],
    ['attention.head_count', u32(shape.nHead)],
    ['attention.head_count_kv', u32(shape.nHeadKv)],
    ['attention.key_length', u32(shape.headDim)],
    ['attention.value_length', u32(shape.headDim)],
    [arch === 'opt' ? 'attention.layer_norm_epsilon' : 'attention.layer_norm_rms_epsilon', f32(shape.normEps)],
    ...(arch === 'llama' ? [['rope.dimension_count', u32(shape.headDim)] as [string, GgufValue]] : []),
    ...(ropeTheta === null ? [] : [['rope.freq_base', f32(ropeTheta)] as [string, GgufValue]]),
    // Which layers slide, and their RoPE base of 10,000, files leave to the reader: every layer but each sixth.
    ...(window === undefined ? [] : [['attention.sliding_window', u32(window)] as [string, GgufValue]]),
  ]
}

/** The tokenizer's keys, its lists made as long as the vocabulary with tokens that no text becomes. */
export function tokenizerValues(path: string, nVocab: number): [string, GgufValue][] {
  using source = openGguf(path)
  const tokens = source.metadata('tokenizer.ggml.tokens')
  if (!Array.isArray(tokens)) throw new KvasirError('tokenizer_invalid', { path, reason: 'it has no list of tokens' })
  if (nVocab < tokens.length)
    throw new KvasirError('usage', { reason: `vocab must be at least ${tokens.length}, the size of the tokenizer` })
  const unused = Array.from({ length: nVocab - tokens.length }, (_, i) => `<|unused_${tokens.length + i}|>`)
  const padding: Record<string, readonly (string | number)[]> = {
    'tokenizer.ggml.tokens': unused,
    'tokenizer.ggml.token_type': unused.map(() => TOKEN_TYPE_UNUSED),
    'tokenizer.ggml.scores': unused.map(() => 0),
  }
  const keys = source.metadataKeys().filter((key) => key.startsWith('tokenizer.'))
  return keys.map((key): [string, GgufValue] => {
    const { kind, value } = source.value(key)!
    const more = padding[key]
    return [key, more && Array.isArray(value) ? { kind, value: [...value, ...more] } : { kind, value }]
  })
}
