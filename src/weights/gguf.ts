/** GGUF files, whole or split into `name-00001-of-00003.gguf` and so on. */
import { KvasirError } from '../core/errors.ts'
import { type ArraySpan, type GgufHeader, readGgufHeader } from './gguf-header.ts'
import { type GgufValue, NUMBER_KINDS } from './gguf-values.ts'
import { modelError, ModelFile } from './model-file.ts'
import type { MetadataValue, TensorInfo, WeightSource } from './source.ts'

export interface GgufSource extends WeightSource {
  /** A metadata value with its kind in the file, to copy it into another. */
  value(key: string): GgufValue | undefined
}

const SPLIT_NAME = /^(.*)-(\d{5,})-of-(\d{5,})\.gguf$/s

interface Part {
  readonly path: string
  readonly header: GgufHeader
}

/**
 * Opens a file, and the rest of its parts if it is the first of several. Only the headers are read.
 * Errors: `model_not_found` (also for a missing part), `model_invalid`, `model_unsupported`.
 */
export function openGguf(path: string): GgufSource {
  const file = ModelFile.open(path)
  try {
    const first = { path, header: readGgufHeader(file) }
    const parts = [first, ...otherParts(first)]
    const tensors = joinTensors(parts)
    const { values } = first.header
    const value = (key: string): GgufValue | undefined => {
      const entry = values.get(key)
      return entry === undefined || 'kind' in entry ? entry : readArray(file, entry)
    }
    return {
      path,
      format: 'gguf',
      files: parts.map((part) => part.path),
      tensors,
      value,
      metadata: (key) => value(key)?.value,
      metadataKeys: () => [...values.keys()],
      [Symbol.dispose]: () => file[Symbol.dispose](),
    }
  } catch (error) {
    file[Symbol.dispose]()
    throw error
  }
}

function readArray(file: ModelFile, { of, length, offset, nBytes }: ArraySpan): GgufValue {
  const bytes = file.read(offset, nBytes)
  const view = new DataView(bytes.buffer, bytes.byteOffset, nBytes)
  const value: MetadataValue[] = Array.from({ length })
  let at = 0
  for (let i = 0; i < length; i++) {
    if (of === 'str') {
      const end = at + 8 + view.getUint32(at, true) // strings of 4 GiB were refused with the header
      value[i] = bytes.toString('utf8', at + 8, Math.min(end, nBytes))
      at = end
    } else {
      value[i] = NUMBER_KINDS[of].get(view, at)
      at += NUMBER_KINDS[of].size
    }
  }
  return { kind: `${of}[]`, value }
}

/** A whole number from the header of a part; 0 where it is missing. */
function count({ path, header }: Part, key: string): number {
  const entry = header.values.get(key)
  const value = entry === undefined ? 0 : 'kind' in entry ? entry.value : null
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0) return value
  throw modelError('model_invalid', path, { reason: `'${key}' is not a count` })
}

function otherParts(first: Part): Part[] {
  const nParts = count(first, 'split.count')
  if (nParts <= 1) return []
  const fail = (path: string, reason: string): never => {
    throw modelError('model_invalid', path, { reason })
  }
  const [, prefix, number, total] =
    SPLIT_NAME.exec(first.path) ??
    fail(first.path, `it is one of ${nParts} parts, but its name does not end in -0000N-of-0000M.gguf`)
  const pathOf = (i: number) => `${prefix}-${String(i + 1).padStart(number!.length, '0')}-of-${total}.gguf`
  const no = count(first, 'split.no')
  if (no !== 0) fail(first.path, `it is part ${no + 1} of ${nParts}; open the first one, ${pathOf(0)}`)
  if (Number(number) !== 1 || Number(total) !== nParts) fail(first.path, `it is part 1 of ${nParts}, but its name says otherwise`)
  return Array.from({ length: nParts - 1 }, (_, i) => {
    const part = openPart(pathOf(i + 1), `part ${i + 2} of ${nParts}`)
    if (count(part, 'split.no') !== i + 1 || count(part, 'split.count') !== nParts)
      fail(part.path, `it is not part ${i + 2} of ${nParts} of ${first.path}`)
    return part
  })
}

function openPart(path: string, what: string): Part {
  try {
    using file = ModelFile.open(path)
    return { path, header: readGgufHeader(file) }
  } catch (error) {
    if (!(error instanceof KvasirError) || error.code !== 'model_not_found') throw error
    throw modelError('model_not_found', path, { reason: `${what} is missing (${error.fields.reason})`, cause: error })
  }
}

function joinTensors(parts: readonly Part[]): Map<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>()
  for (const [file, { path, header }] of parts.entries()) {
    for (const info of header.tensors) {
      if (tensors.has(info.name)) throw modelError('model_invalid', path, { reason: `'${info.name}' is in an earlier part too` })
      tensors.set(info.name, { ...info, file })
    }
  }
  const expected = count(parts[0]!, 'split.tensors.count')
  if (parts.length > 1 && tensors.size !== expected)
    throw modelError('model_invalid', parts[0]!.path, { reason: `its parts hold ${tensors.size} tensors, not ${expected}` })
  return tensors
}
