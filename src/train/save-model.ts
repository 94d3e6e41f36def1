/** A trained model as a GGUF file: the base's metadata and tensors, with what was learnt in their place. */
import { F32 } from '../ggml/types.ts'
import { convertRows } from '../weights/convert.ts'
import type { GgufSource } from '../weights/gguf.ts'
import type { GgufValue } from '../weights/gguf-values.ts'
import { GgufWriter } from '../weights/gguf-writer.ts'
import { readTensor } from '../weights/read-tensor.ts'
import type { Parameters } from './parameters.ts'

export interface SaveOptions {
  readonly path: string
  readonly parameters: Parameters
  /** Values that are added, or take the place of the base's. */
  readonly metadata?: { readonly [key: string]: GgufValue }
  /** False for tensors of the base that the model no longer has. */
  readonly keeps?: (name: string) => boolean
}

/** Tensors have the types they have in the base. Errors: `file_error`; the path is then as it was. */
export async function saveModel(
  base: GgufSource,
  { path, parameters, metadata = {}, keeps = () => true }: SaveOptions,
): Promise<void> {
  const inherited = base.metadataKeys().filter((key) => !(key in metadata) && !key.startsWith('split.'))
  const tensors = [...base.tensors.values()].filter(({ name }) => keeps(name))
  await using writer = await GgufWriter.create(path, {
    metadata: [...inherited.map((key) => [key, base.value(key)!] as const), ...Object.entries(metadata)],
    tensors: tensors.map(({ name, type, ne }) => ({ name, type, ne: withoutOnes(ne) })),
  })
  for (const info of tensors) {
    const parameter = parameters.get(info.name)
    if (!parameter?.trained) {
      await writer.write(readTensor(base, info))
      continue
    }
    const { buffer, byteOffset, byteLength } = parameter.data
    const floats = new Uint8Array(buffer, byteOffset, byteLength)
    const [rowLength, ...rest] = info.ne
    await writer.write(convertRows(floats, { from: F32, to: info.type, rowLength, nRows: rest.reduce((a, b) => a * b) }))
  }
  await writer.finish()
}

/** As files have them: trailing dimensions of 1 left out. */
function withoutOnes(ne: readonly number[]): number[] {
  const last = ne.findLastIndex((n) => n > 1)
  return ne.slice(0, Math.max(1, last + 1))
}
