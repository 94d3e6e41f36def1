/** A node of a graph as ggml has it: what it computes, from what, and its shape. For those who look at graphs. */
import koffi from 'koffi'
import type { Pointer } from './bindings.ts'
import { ggml } from './library.ts'
import { type Shape, shapeOf, type Tensor } from './tensor.ts'

/** The beginning of `struct ggml_tensor` of the pinned version. */
const TENSOR = koffi.struct({
  type: 'int',
  buffer: 'void *',
  ne: koffi.array('int64_t', 4),
  nb: koffi.array('size_t', 4),
  op: 'int',
  opParams: koffi.array('int32_t', 16),
  flags: 'int',
  src: koffi.array('void *', 10),
})

export interface Node extends Tensor {
  /** ggml's name of the operation: `MUL_MAT`, `SWIGLU`. */
  readonly op: string
  readonly sources: readonly Tensor[]
}

/** Operations that only say how memory is looked at: there is nothing to compute. */
const FREE = new Set(['NONE', 'VIEW', 'RESHAPE', 'PERMUTE', 'TRANSPOSE'])

export function nodeAt(ptr: Pointer): Node {
  const { src } = decode(ptr)
  const sources = src.filter((source) => source !== null).map(tensorAt)
  return { ...tensorAt(ptr), op: ggml().ggml_op_desc(ptr), sources }
}

export function isFree({ op }: Node): boolean {
  return FREE.has(op)
}

function tensorAt(ptr: Pointer): Tensor {
  const { type, ne, nb } = decode(ptr)
  return { ptr, type, ne: shape(ne), nb: shape(nb) }
}

interface Decoded {
  readonly type: number
  readonly ne: ArrayLike<number | bigint>
  readonly nb: ArrayLike<number | bigint>
  readonly src: readonly (Pointer | null)[]
}

function decode(ptr: Pointer): Decoded {
  return koffi.decode(ptr, TENSOR) as Decoded
}

function shape(numbers: ArrayLike<number | bigint>): Shape {
  return shapeOf(...Array.from(numbers, Number))
}
