/** Small GGUF files for tests: a header of ours, and data that is a hole in the file. */
import { truncateSync, writeFileSync } from 'node:fs'
import type { GgufValue } from '../../src/weights/gguf-values.ts'
import { encodeGgufHeader, type GgufContent, tensorBytes } from '../../src/weights/gguf-writer.ts'

/** One value of every kind. */
export const VALUES: [string, GgufValue][] = [
  ['general.architecture', { kind: 'str', value: 'llama' }],
  ['general.alignment', { kind: 'u32', value: 32 }],
  ['a.u8', { kind: 'u8', value: 255 }],
  ['a.i8', { kind: 'i8', value: -1 }],
  ['a.u16', { kind: 'u16', value: 65_535 }],
  ['a.i16', { kind: 'i16', value: -2 }],
  ['a.u32', { kind: 'u32', value: 2 ** 32 - 1 }],
  ['a.i32', { kind: 'i32', value: -3 }],
  ['a.f32', { kind: 'f32', value: Math.fround(1e-5) }],
  ['a.bool', { kind: 'bool', value: true }],
  ['a.u64', { kind: 'u64', value: 2 ** 53 }],
  ['a.i64', { kind: 'i64', value: -(2 ** 53) }],
  ['a.f64', { kind: 'f64', value: Math.PI }],
  ['a.empty', { kind: 'str', value: '' }],
  ['a.no-strings', { kind: 'str[]', value: [] }],
  ['a.strings', { kind: 'str[]', value: ['', 'Ġthe', '日本語', 'a\nb'] }],
  ['a.bools', { kind: 'bool[]', value: [true, false] }],
  ['a.floats', { kind: 'f32[]', value: [0.5, -0.25] }],
  ['a.wide', { kind: 'i64[]', value: [1, -1] }],
]

export const SMALL: GgufContent = {
  metadata: VALUES,
  tensors: [
    { name: 'a', type: 1, ne: [32, 4] },
    { name: 'b', type: 8, ne: [64, 2, 2] },
    { name: 'c', type: 0, ne: [5] },
  ],
}

/** Writes the header, and the data as a hole of the right size or, where given, of another. */
export function writeSmall(path: string, content: GgufContent = SMALL, nDataBytes?: number): Buffer {
  const header = encodeGgufHeader(content)
  const nBytes = content.tensors.reduce((sum, tensor) => Math.ceil((sum + tensorBytes(tensor)) / 32) * 32, 0)
  writeFileSync(path, header)
  truncateSync(path, header.length + (nDataBytes ?? nBytes))
  return header
}
