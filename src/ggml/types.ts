/** ggml's tensor types: the names users write, the ids files and C use, and how many bytes a block of elements takes. */
import { KvasirError } from '../core/errors.ts'

export interface TypeInfo {
  /** As users write it: `f16`, `q8_0`, `q4_k`. */
  readonly name: string
  /** `enum ggml_type`. */
  readonly id: number
  /** Elements per block; a row is a whole number of blocks. */
  readonly blockSize: number
  readonly blockBytes: number
  /** ggml can take rows of a matrix of this type and multiply by it; anything else as a weight aborts the process. */
  readonly matrix: boolean
  /** Made from f32 without an importance matrix (llama.cpp's quantiser demands one for the smallest types). */
  readonly quantizable: boolean
}

const MATRIX = 'matrix' // and quantizable
const NEEDS_IMATRIX = 'needs imatrix' // a matrix, not quantizable
const OTHER = 'other' // neither

const type = (name: string, id: number, blockSize: number, blockBytes: number, use = MATRIX): TypeInfo => ({
  name,
  id,
  blockSize,
  blockBytes,
  matrix: use !== OTHER,
  quantizable: use === MATRIX,
})

/** Every type the library has; ids that are missing are types it has dropped. */
export const TYPES: readonly TypeInfo[] = [
  type('f32', 0, 1, 4),
  type('f16', 1, 1, 2),
  type('q4_0', 2, 32, 18),
  type('q4_1', 3, 32, 20),
  type('q5_0', 6, 32, 22),
  type('q5_1', 7, 32, 24),
  type('q8_0', 8, 32, 34),
  type('q8_1', 9, 32, 36, OTHER),
  type('q2_k', 10, 256, 84),
  type('q3_k', 11, 256, 110),
  type('q4_k', 12, 256, 144),
  type('q5_k', 13, 256, 176),
  type('q6_k', 14, 256, 210),
  type('q8_k', 15, 256, 292, OTHER),
  type('iq2_xxs', 16, 256, 66, NEEDS_IMATRIX),
  type('iq2_xs', 17, 256, 74, NEEDS_IMATRIX),
  type('iq3_xxs', 18, 256, 98, NEEDS_IMATRIX),
  type('iq1_s', 19, 256, 50, NEEDS_IMATRIX),
  type('iq4_nl', 20, 32, 18),
  type('iq3_s', 21, 256, 110),
  type('iq2_s', 22, 256, 82, NEEDS_IMATRIX),
  type('iq4_xs', 23, 256, 136),
  type('i8', 24, 1, 1, OTHER),
  type('i16', 25, 1, 2, OTHER),
  type('i32', 26, 1, 4, OTHER),
  type('i64', 27, 1, 8, OTHER),
  type('f64', 28, 1, 8, OTHER),
  type('iq1_m', 29, 256, 56, NEEDS_IMATRIX),
  type('bf16', 30, 1, 2),
  type('tq1_0', 34, 256, 54),
  type('tq2_0', 35, 256, 66),
  type('mxfp4', 39, 32, 17),
  type('nvfp4', 40, 64, 36),
  type('q1_0', 41, 128, 18),
  type('q2_0', 42, 64, 18),
]

export const F32 = 0
export const F16 = 1
export const Q8_0 = 8
export const I32 = 26
export const BF16 = 30

const byId = new Map(TYPES.map((info) => [info.id, info]))
const byName = new Map(TYPES.map((info) => [info.name, info]))

/** The type with `id`, which may come from a file. */
export function typeInfo(id: number): TypeInfo | undefined {
  return byId.get(id)
}

/** The id of a type a user named, in any case. Errors: `usage`, with the names there are. */
export function typeId(name: string): number {
  const info = byName.get(name.toLowerCase())
  if (info === undefined) throw new KvasirError('usage', { reason: `'${name}' is not one of ${[...byName.keys()].join(', ')}` })
  return info.id
}

export function typeName(id: number): string {
  return byId.get(id)?.name ?? `type ${id}`
}

function known(id: number): TypeInfo {
  const info = byId.get(id)
  if (info === undefined) throw new RangeError(`ggml has no ${typeName(id)}`)
  return info
}

/** Elements per block. */
export function blockSize(id: number): number {
  return known(id).blockSize
}

/** Bytes of a row of `ne0` elements, which must be whole blocks. */
export function rowBytes(id: number, ne0: number): number {
  const info = known(id)
  if (ne0 % info.blockSize !== 0) throw new RangeError(`a row of ${ne0} elements is not whole blocks of ${info.name}`)
  return (ne0 / info.blockSize) * info.blockBytes
}
