/** A copy of a GGUF file with other metadata and more tensors, to try what no file at hand has. */
import { readFileSync } from 'node:fs'
import { openGguf } from '../../src/weights/gguf.ts'
import type { GgufValue } from '../../src/weights/gguf-values.ts'
import { GgufWriter } from '../../src/weights/gguf-writer.ts'

export interface Edits {
  /** Added, or put in place of the file's own. */
  readonly metadata?: Readonly<Record<string, GgufValue>>
  /** Vectors to add, f32. */
  readonly vectors?: Readonly<Record<string, Float32Array>>
  /** Changes the bytes of tensors. */
  readonly change?: Readonly<Record<string, (bytes: Uint8Array) => void>>
}

const F32 = 0

export async function editGguf(from: string, to: string, { metadata = {}, vectors = {}, change = {} }: Edits): Promise<void> {
  using source = openGguf(from)
  const kept = source.metadataKeys().map((key): [string, GgufValue] => [key, source.value(key)!])
  const tensors = [...source.tensors.values()]
  const added = Object.entries(vectors)
  await using writer = await GgufWriter.create(to, {
    metadata: new Map([...kept, ...Object.entries(metadata)]),
    tensors: [...tensors, ...added.map(([name, { length }]) => ({ name, type: F32, ne: [length] }))],
  })
  const bytes = readFileSync(from)
  for (const { name, offset, nBytes } of tensors) {
    const content = bytes.subarray(offset, offset + nBytes)
    change[name]?.(content)
    await writer.write(content)
  }
  for (const [, values] of added) await writer.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  await writer.finish()
}
