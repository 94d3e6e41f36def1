/**
 * Models of random weights in the shapes of real ones, to measure speed and memory without a download.
 * They say nothing sensible. llama.cpp loads them too, except OPT, which it does not know.
 */
import { KvasirError } from '../core/errors.ts'
import { parseLayerTypes, SHARING_DEFAULTS } from '../core/layer-types.ts'
import { F32, Q8_0, typeId, typeInfo } from '../ggml/types.ts'
import { GgufWriter } from './gguf-writer.ts'
import { RandomPool } from './random-pool.ts'
import { SYNTH_SHAPES, type SynthShape } from './synth-shapes.ts'
import { ropeDivisors, type SynthFill, type SynthTensor, synthTensors } from './synth-tensors.ts'
import { modelValues, tokenizerValues } from './synth-values.ts'

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
/** Standard deviation of a token's embedding. */
const TOKEN_STD = 1

/** Vectors are `at + by · x`, x of the deviation that matrices have; see {@link SynthFill}. */
const VECTORS: { readonly [fill in SynthFill]?: (shape: SynthShape) => { readonly at: number; readonly by: number } } = {
  norm: () => ({ at: 1, by: 1 }),
  'output-norm': () => ({ at: 0.01, by: 0.01 }),
  // Gemma's embeddings are multiplied by this root; what is added to them has to follow, to matter as much as elsewhere.
  'post-norm': ({ nEmbd }) => ({ at: Math.sqrt(nEmbd) / 4, by: Math.sqrt(nEmbd) / 4 }),
  positions: () => ({ at: 0, by: 10 }),
}

/** Writes the file. Errors: `usage`, `file_error`, `aborted`, and those of a GGUF file for `tokenizerFrom`. */
export async function synthesize(options: SynthOptions): Promise<SynthResult> {
  const { like, type, seed = 0, out, onProgress, signal } = options
  const shape = shapeOf(options)
  const tensors = synthTensors(shape).map((tensor) => ({ ...tensor, type: typeOf(tensor, typeId(type)) }))
  const metadata = [...modelValues(shape, like, SYNTH_TYPES[type]), ...tokenizerValues(options.tokenizerFrom, shape.nVocab)]
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
  const vector = VECTORS[what]?.(shape)
  if (vector === undefined) return bytes
  const { at, by } = vector
  for (let byte = 0; byte < bytes.length; byte += 4) bytes.writeFloatLE(at + by * bytes.readFloatLE(byte), byte)
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
  if (reads && shape.arch !== 'llama') usage(`layer types are for llamas, and '${like}' is ${shape.arch}`)
  return {
    ...shape,
    ...(reads && { sharing: { ...SHARING_DEFAULTS, reads: reads as readonly number[] } }),
    nLayer,
    nVocab: count('vocab', vocab ?? shape.nVocab, 1 << 20),
    nCtxTrain: count('ctx', ctx ?? shape.nCtxTrain, 2 ** 31 - 1),
  }
}
