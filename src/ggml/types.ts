/** ggml's element types: names as users write them, ids, and how many elements and bytes make one block. */
import { KvasirError } from '../core/errors.ts'

/** name → [id, elements per block, bytes per block]. A test holds this table against the library. */
export const TYPES = {
  f32: [0, 1, 4],
  f16: [1, 1, 2],
  q4_0: [2, 32, 18],
  q4_1: [3, 32, 20],
  q5_0: [6, 32, 22],
  q5_1: [7, 32, 24],
  q8_0: [8, 32, 34],
  q2_k: [10, 256, 84],
  q3_k: [11, 256, 110],
  q4_k: [12, 256, 144],
  q5_k: [13, 256, 176],
  q6_k: [14, 256, 210],
  iq2_xxs: [16, 256, 66],
  iq2_xs: [17, 256, 74],
  iq3_xxs: [18, 256, 98],
  iq1_s: [19, 256, 50],
  iq4_nl: [20, 32, 18],
  iq3_s: [21, 256, 110],
  iq2_s: [22, 256, 82],
  iq4_xs: [23, 256, 136],
  i8: [24, 1, 1],
  i16: [25, 1, 2],
  i32: [26, 1, 4],
  i64: [27, 1, 8],
  f64: [28, 1, 8],
  iq1_m: [29, 256, 56],
  bf16: [30, 1, 2],
  tq1_0: [34, 256, 54],
  tq2_0: [35, 256, 66],
  mxfp4: [39, 32, 17],
  nvfp4: [40, 64, 36],
  q1_0: [41, 128, 18],
  q2_0: [42, 64, 18],
} as const satisfies Record<string, readonly [id: number, elements: number, bytes: number]>

export type TypeName = keyof typeof TYPES

export const F32 = 0
export const F16 = 1
export const I32 = 26
export const BF16 = 30

const byId = new Map<number, { readonly name: TypeName; readonly elements: number; readonly bytes: number }>(
  Object.entries(TYPES).map(([name, [id, elements, bytes]]) => [id, { name: name as TypeName, elements, bytes }]),
)

export function isKnownType(id: number): boolean {
  return byId.has(id)
}

/** The id of a type as users write it (`q8_0`, `F16`, …); an error that lists the known ones otherwise. */
export function typeId(name: string): number {
  const row = TYPES[name.toLowerCase() as TypeName] as readonly number[] | undefined
  if (row) return row[0]!
  throw new KvasirError('usage', { reason: `unknown type '${name}'; known: ${Object.keys(TYPES).join(', ')}` })
}

export function typeName(id: number): string {
  return byId.get(id)?.name ?? `type ${id}`
}

/** Elements per block; a row's length must be a multiple of it. */
export function blockSize(id: number): number {
  return entry(id).elements
}

/** Bytes of a row of `ne0` elements. */
export function rowBytes(id: number, ne0: number): number {
  const { elements, bytes } = entry(id)
  return (ne0 / elements) * bytes
}

function entry(id: number): { readonly elements: number; readonly bytes: number } {
  const found = byId.get(id)
  if (!found) throw new Error(`ggml type ${id} is not known`)
  return found
}
