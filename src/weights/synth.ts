/**
 * Models of random weights in the shapes of real ones, to measure speed and memory without a download.
 * They say nothing sensible. llama.cpp loads them too.
 */
import { KvasirError } from '../core/errors.ts'
import { parseLayerTypes, SHARING_DEFAULTS } from '../core/layer-types.ts'
import { F32, Q8_0, typeId, typeInfo } from '../ggml/types.ts'
import { openGguf } from './gguf.ts'
import { sharingValues } from './gguf-sharing.ts'
import type { GgufValue } from './gguf-values.ts'
import { GgufWriter } from './gguf-writer.ts'
import { RandomPool } from './random-pool.ts'
import { ropeDivisors, SYNTH_SHAPES, type SynthShape, type SynthTensor, synthTensors } from './synth-shapes.ts'

/** Types of matrices, with llama.cpp's `general.file_type`. */
export const SYNTH_TYPES = { f16: 1, q8_0: 7, q4_0: 2, q4_k: 14 } as const
export type SynthType = keyof typeof SYNTH_TYPES

export interface SynthOptions {
  /** A name of {@link SYNTH_SHAPES}. */
  readonly like: string
  readonly type: SynthType
  readonly out: string
  /** A GGUF whose tokenizer is copied; `vocab` must not be smaller than its vocabulary. */
  readonly tokenizerFrom: string
  /** Instead of the shape's own numbers. */
  readonly layers?: number | undefined
  readonly vocab?: number | undefined
  readonly ctx?: number | undefined
  /** Which layer's keys and values each layer reads, see core/layer-types.ts. */
  readonly layerTypes?: string | undefined
  readonly seed?: number | undefined
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export interface SynthResult {
  readonly path: string
  readonly nBytes: number
  readonly nParameters: number
}

const SLAB_ELEMENTS = 1 << 20
const TOKEN_TYPE_UNUSED = 5
/** See {@link SynthTensor}. */
const TOKEN_STD = 1
const OUTPUT_NORM = 0.01

/** Writes the file. Errors: `usage`, `file_error`, `aborted`, and those of {@link openGguf} for `tokenizerFrom`. */
export async function synthesize(options: SynthOptions): Promise<SynthResult> {
  const { like, type, seed = 0, out, onProgress, signal } = options
  const shape = shapeOf(options)
  const tensors = synthTensors(shape).map((tensor) => ({ ...tensor, type: typeOf(tensor, typeId(type)) }))
  const metadata = [...modelValues(shape, like, type), ...tokenizerValues(options.tokenizerFrom, shape.nVocab)]
  const weights = new RandomPool(seed)
  const slab = Buffer.alloc(SLAB_ELEMENTS * 4)
  await using writer = await GgufWriter.create(out, { metadata, tensors })
  const nParameters = tensors.reduce((n, { ne }) => n + ne.reduce((a, b) => a * b), 0)
  let done = 0
  for (const tensor of tensors) {
    const nElements = tensor.ne.reduce((a, b) => a * b)
    const pool = tensor.fill === 'tokens' ? new RandomPool(seed + 1, TOKEN_STD) : weights // anew each time: the same values
    for (let at = 0; at < nElements; at += SLAB_ELEMENTS) {
      if (signal?.aborted) throw new KvasirError('aborted')
      const n = Math.min(SLAB_ELEMENTS, nElements - at)
      await writer.write(fill(pool, slab, { ...tensor, n, shape }))
      done += n
      onProgress?.(done / nParameters)
    }
  }
  await writer.finish()
  return { path: out, nBytes: writer.nBytes, nParameters }
}

interface Fill extends SynthTensor {
  readonly type: number
  readonly n: number
  readonly shape: SynthShape
}

function fill(pool: RandomPool, into: Buffer, { fill: what, type, n, shape }: Fill): Uint8Array {
  if (what === 'rope') return new Uint8Array(ropeDivisors(shape).buffer)
  const bytes = pool.fill(into, type, n)
  const scale = { norm: 1, 'output-norm': OUTPUT_NORM }[what as string]
  if (scale) for (let at = 0; at < bytes.length; at += 4) bytes.writeFloatLE(scale * (1 + bytes.readFloatLE(at)), at)
  return bytes
}

/** llama.cpp's quantiser told to be `pure`: every matrix in the same type, or q8_0 where its rows are not whole blocks. */
function typeOf({ fill, ne }: SynthTensor, wanted: number): number {
  if (fill !== 'matrix' && fill !== 'tokens') return F32
  return ne[0]! % typeInfo(wanted)!.blockSize === 0 ? wanted : Q8_0
}

function shapeOf({ like, type, layers, vocab, ctx, layerTypes, seed = 0 }: SynthOptions): SynthShape {
  const usage = (reason: string): never => {
    throw new KvasirError('usage', { reason })
  }
  const shape = SYNTH_SHAPES.get(like) ?? usage(`no shape '${like}'; there are ${[...SYNTH_SHAPES.keys()].join(', ')}`)
  if (!Object.hasOwn(SYNTH_TYPES, type)) usage(`no type '${type}'; there are ${Object.keys(SYNTH_TYPES).join(', ')}`)
  if (!Number.isSafeInteger(seed)) usage(`the seed must be a whole number, not ${seed}`)
  const count = (what: string, value: number, most: number): number =>
    Number.isInteger(value) && value >= 1 && value <= most ? value : usage(`${what} must be a whole number from 1 to ${most}`)
  const nLayer = count('layers', layers ?? shape.nLayer, 512)
  const reads = layerTypes === undefined ? null : parseLayerTypes(layerTypes, nLayer)
  if (typeof reads === 'string') usage(`layer types: ${reads}`)
  return {
    ...shape,
    ...(reads && { sharing: { ...SHARING_DEFAULTS, reads: reads as readonly number[] } }),
    nLayer,
    nVocab: count('vocab', vocab ?? shape.nVocab, 1 << 20),
    nCtxTrain: count('ctx', ctx ?? shape.nCtxTrain, 2 ** 31 - 1),
  }
}

function modelValues(shape: SynthShape, like: string, type: SynthType): [string, GgufValue][] {
  const u32 = (value: number): GgufValue => ({ kind: 'u32', value })
  const f32 = (value: number): GgufValue => ({ kind: 'f32', value })
  const str = (value: string): GgufValue => ({ kind: 'str', value })
  return [
    ['general.architecture', str(shape.arch)],
    ['general.name', str(`${like} (random weights)`)],
    ['general.file_type', u32(SYNTH_TYPES[type])],
    ['general.quantization_version', u32(2)],
    ['llama.vocab_size', u32(shape.nVocab)],
    ['llama.context_length', u32(shape.nCtxTrain)],
    ['llama.embedding_length', u32(shape.nEmbd)],
    ['llama.block_count', u32(shape.nLayer)],
    ['llama.feed_forward_length', u32(shape.nFf)],
    ['llama.attention.head_count', u32(shape.nHead)],
    ['llama.attention.head_count_kv', u32(shape.nHeadKv)],
    ['llama.attention.key_length', u32(shape.headDim)],
    ['llama.attention.value_length', u32(shape.headDim)],
    ['llama.attention.layer_norm_rms_epsilon', f32(shape.rmsNormEps)],
    ['llama.rope.dimension_count', u32(shape.headDim)],
    ['llama.rope.freq_base', f32(shape.ropeTheta)],
    ...(shape.sharing ? sharingValues(shape.sharing) : []),
  ]
}

/** The tokenizer's keys, its lists made as long as the vocabulary with tokens that no text becomes. */
function tokenizerValues(path: string, nVocab: number): [string, GgufValue][] {
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
