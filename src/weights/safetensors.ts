/** Hugging Face folders: `config.json`, and the weights in `model.safetensors` or in the shards of its index. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { reasonOf } from '../core/errors.ts'
import { BF16, F16, F32, rowBytes } from '../ggml/types.ts'
import { modelError, ModelFile } from './model-file.ts'
import type { MetadataValue, TensorInfo, WeightSource } from './source.ts'

/** Many times what models need; a deeply nested text takes fifty times its bytes to parse. */
const MAX_JSON_BYTES = 16 * 1024 * 1024
const MAX_DIMS = 4
const SINGLE = 'model.safetensors'
const INDEX = 'model.safetensors.index.json'
const TYPES = new Map([
  ['F32', F32],
  ['F16', F16],
  ['BF16', BF16],
])

type Json = { readonly [key: string]: MetadataValue }

/**
 * Opens the folder; only the headers of its files are read. Tensors keep their names; shapes become ggml's, fastest first.
 * Errors: `model_not_found` (also for a missing shard), `model_invalid`, `model_unsupported`.
 */
export function openHuggingFace(folder: string): WeightSource {
  const config = new Map(Object.entries(readJson(join(folder, 'config.json'))))
  const files: string[] = []
  const tensors = new Map<string, TensorInfo>()
  for (const [name, wanted] of weightFiles(folder)) {
    const path = join(folder, name)
    const found = readHeader(path, files.length)
    for (const tensor of wanted ?? found.keys()) {
      const info = found.get(tensor)
      if (info === undefined) throw invalid(path, `tensor '${tensor}' is not in it, though the index says so`)
      tensors.set(tensor, info)
    }
    files.push(path)
  }
  return {
    path: folder,
    format: 'huggingface',
    files,
    tensors,
    metadata: (key) => config.get(key),
    metadataKeys: () => [...config.keys()],
    [Symbol.dispose]: () => {},
  }
}

function invalid(path: string, reason: string): Error {
  return modelError('model_invalid', path, { reason })
}

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)

function parseObject(path: string, text: string): Json {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw modelError('model_invalid', path, { reason: `its JSON is wrong: ${reasonOf(error)}`, cause: error })
  }
  if (!isObject(value)) throw invalid(path, 'its JSON is not an object')
  return value
}

function readJson(path: string): Json {
  using file = ModelFile.open(path)
  if (file.size > MAX_JSON_BYTES) file.unsupported(`it is larger than ${MAX_JSON_BYTES} bytes`)
  return parseObject(path, file.read(0, file.size).toString('utf8'))
}

/** Whether the folder holds weights we could read; config.json alone may stand beside GGUF files. */
export function hasSafetensors(folder: string): boolean {
  return existsSync(join(folder, SINGLE)) || existsSync(join(folder, INDEX))
}

/** The folder's weight files, each with the tensors that the index wants from it; null is all of them. */
function weightFiles(folder: string): Map<string, string[] | null> {
  if (!hasSafetensors(folder)) throw modelError('model_not_found', folder, { reason: `it has neither ${SINGLE} nor ${INDEX}` })
  if (existsSync(join(folder, SINGLE))) return new Map([[SINGLE, null]])
  const path = join(folder, INDEX)
  const map = readJson(path).weight_map
  if (!isObject(map)) throw invalid(path, "it has no 'weight_map'")
  const files = new Map<string, string[]>()
  for (const [tensor, name] of Object.entries(map)) {
    // A shard lies beside the index: a path that leads elsewhere is no model's.
    if (typeof name !== 'string' || !/^[^/\\\0]+\.safetensors$/.test(name))
      throw invalid(path, `'${tensor}' is in no file of the folder`)
    const tensors = files.get(name) ?? []
    files.set(name, tensors)
    tensors.push(tensor)
  }
  return files
}

/** The tensors of one file, with `index` as their file. */
function readHeader(path: string, index: number): Map<string, TensorInfo> {
  using file = ModelFile.open(path)
  if (file.size < 8) file.fail('it is too short for a header')
  const length = Number(file.read(0, 8).readBigUInt64LE())
  if (length > file.size - 8) file.fail(`its header of ${length} bytes is longer than the file`)
  if (length > MAX_JSON_BYTES) file.unsupported(`its header is larger than ${MAX_JSON_BYTES} bytes`)
  const dataStart = 8 + length
  const entries = Object.entries(parseObject(path, file.read(8, length).toString('utf8'))).filter(
    ([name]) => name !== '__metadata__',
  )
  const infos = entries.map(([name, entry]) => tensorInfo(file, { name, entry, index, dataStart }))
  let end = dataStart
  for (const info of infos.toSorted((a, b) => a.offset - b.offset)) {
    if (info.offset < end) file.fail(`tensor '${info.name}' overlaps another`)
    end = info.offset + info.nBytes
  }
  return new Map(infos.map((info) => [info.name, info]))
}

interface Entry {
  readonly name: string
  readonly entry: MetadataValue
  readonly index: number
  readonly dataStart: number
}

const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
const isCounts = (value: unknown): value is number[] => Array.isArray(value) && value.every(isCount)

function tensorInfo(file: ModelFile, { name, entry, index, dataStart }: Entry): TensorInfo {
  const what = `tensor '${name}'`
  if (!isObject(entry)) return file.fail(`${what} has no description`)
  const { dtype, shape, data_offsets: span } = entry
  if (typeof dtype !== 'string' || !isCounts(shape)) return file.fail(`${what} has no type or shape`)
  if (!isCounts(span) || span.length !== 2) return file.fail(`${what} has no offsets`)
  const type = TYPES.get(dtype) ?? file.unsupported(`${what} has type ${dtype}; F32, F16 and BF16 are supported`)
  if (shape.length > MAX_DIMS) file.unsupported(`${what} has ${shape.length} dimensions`)
  if (shape.includes(0)) file.fail(`${what} is empty`)
  const [n0, n1, n2, n3] = [...shape.toReversed(), 1, 1, 1, 1] as [number, number, number, number]
  const nBytes = rowBytes(type, n0) * n1 * n2 * n3
  const [from, to] = span as [number, number]
  if (to - from !== nBytes) file.fail(`${what} of shape ${shape.join('×')} (${dtype}) has ${to - from} bytes, not ${nBytes}`)
  if (dataStart + to > file.size) file.fail(`${what} ends at byte ${dataStart + to}, but the file has ${file.size}`)
  return { name, type, ne: [n0, n1, n2, n3], file: index, offset: dataStart + from, nBytes }
}
