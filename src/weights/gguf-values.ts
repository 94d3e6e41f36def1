/** The kinds of metadata values in GGUF: their ids in the file, and how they are read and written (little-endian). */
import type { MetadataValue } from './source.ts'

interface NumberKind {
  readonly id: number
  readonly size: number
  readonly get: (view: DataView, at: number) => number | boolean
  readonly set: (view: DataView, at: number, value: number | boolean) => void
}

/** 64-bit integers become numbers: exact up to 2^53, and no key we know holds more. */
export const NUMBER_KINDS = {
  u8: { id: 0, size: 1, get: (v, at) => v.getUint8(at), set: (v, at, x) => v.setUint8(at, Number(x)) },
  i8: { id: 1, size: 1, get: (v, at) => v.getInt8(at), set: (v, at, x) => v.setInt8(at, Number(x)) },
  u16: { id: 2, size: 2, get: (v, at) => v.getUint16(at, true), set: (v, at, x) => v.setUint16(at, Number(x), true) },
  i16: { id: 3, size: 2, get: (v, at) => v.getInt16(at, true), set: (v, at, x) => v.setInt16(at, Number(x), true) },
  u32: { id: 4, size: 4, get: (v, at) => v.getUint32(at, true), set: (v, at, x) => v.setUint32(at, Number(x), true) },
  i32: { id: 5, size: 4, get: (v, at) => v.getInt32(at, true), set: (v, at, x) => v.setInt32(at, Number(x), true) },
  f32: { id: 6, size: 4, get: (v, at) => v.getFloat32(at, true), set: (v, at, x) => v.setFloat32(at, Number(x), true) },
  bool: { id: 7, size: 1, get: (v, at) => v.getUint8(at) !== 0, set: (v, at, x) => v.setUint8(at, x ? 1 : 0) },
  u64: {
    id: 10,
    size: 8,
    get: (v, at) => Number(v.getBigUint64(at, true)),
    set: (v, at, x) => v.setBigUint64(at, BigInt(x), true),
  },
  i64: {
    id: 11,
    size: 8,
    get: (v, at) => Number(v.getBigInt64(at, true)),
    set: (v, at, x) => v.setBigInt64(at, BigInt(x), true),
  },
  f64: { id: 12, size: 8, get: (v, at) => v.getFloat64(at, true), set: (v, at, x) => v.setFloat64(at, Number(x), true) },
} as const satisfies Record<string, NumberKind>

export const STRING_ID = 8
export const ARRAY_ID = 9

type NumberKindName = keyof typeof NUMBER_KINDS
export type ScalarKind = NumberKindName | 'str'
/** `str[]` is an array of strings; arrays of arrays do not occur (ggml refuses them). */
export type ValueKind = ScalarKind | `${ScalarKind}[]`

/** A metadata value with the kind it has in the file: what the writer takes and the reader gives. */
export interface GgufValue {
  readonly kind: ValueKind
  readonly value: MetadataValue
}

const kindsById = new Map<number, ScalarKind>([[STRING_ID, 'str']])
for (const [name, kind] of Object.entries(NUMBER_KINDS)) kindsById.set(kind.id, name as NumberKindName)

/** The kind of a scalar by its id in the file; undefined for arrays and ids that do not exist. */
export function scalarKind(id: number): ScalarKind | undefined {
  return kindsById.get(id)
}

export function scalarId(kind: ScalarKind): number {
  return kind === 'str' ? STRING_ID : NUMBER_KINDS[kind].id
}
