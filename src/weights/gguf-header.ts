/**
 * The header of one GGUF file: key-value pairs and the list of tensors.
 *
 * Read in TypeScript and not by ggml's reader, because everything in it must be checked before C sees the file: that reader
 * allocates what a damaged length says (an exception inside C ends the process), compares every name with every other, skips
 * its overflow checks when a product wraps to zero, and does not compare offsets with the size of the file. What passes
 * here, ggml reads too (libllama does, for the tokenizer): the rules below include its own, and a test compares both.
 */
import type { Shape } from '../ggml/tensor.ts'
import { rowBytes, typeInfo } from '../ggml/types.ts'
import { Cursor } from './cursor.ts'
import { ARRAY_ID, type GgufValue, NUMBER_KINDS, type ScalarKind, scalarKind } from './gguf-values.ts'
import type { ModelFile } from './model-file.ts'
import type { TensorInfo } from './source.ts'

/** Four times the largest we know of. ggml needs up to eight times these bytes to read them. */
const MAX_HEADER_BYTES = 64 * 1024 * 1024
/** Of keys, and of tensors. ggml's reader needs time with the square of it. */
const MAX_ENTRIES = 32_768
/** ggml's names have room for this many bytes and a zero. */
const MAX_NAME_BYTES = 63
const MAX_DIMS = 4
const DEFAULT_ALIGNMENT = 32
const MAGIC = 0x46554747 // 'GGUF'

/** An array that has been stepped over: where to read it when asked for. */
export interface ArraySpan {
  readonly of: ScalarKind
  readonly length: number
  readonly offset: number
  readonly nBytes: number
}

export interface GgufHeader {
  readonly values: ReadonlyMap<string, GgufValue | ArraySpan>
  /** In the order of the file; `file` is 0. */
  readonly tensors: readonly TensorInfo[]
}

/** Errors: `model_invalid` for what is damaged, `model_unsupported` for what is sound but not for us. */
export function readGgufHeader(file: ModelFile): GgufHeader {
  const cursor = new Cursor(file, MAX_HEADER_BYTES)
  if (file.size < 24 || cursor.u32() !== MAGIC) file.fail("it does not start with 'GGUF'")
  const version = cursor.u32()
  if (version !== 0 && (version & 0xffff) === 0) file.unsupported('it was written for processors of the other byte order')
  if (version !== 2 && version !== 3) file.unsupported(`GGUF version ${version} is not known (2 and 3 are)`)
  const nTensors = cursor.u64()
  const nValues = cursor.u64()
  if (nTensors > MAX_ENTRIES || nValues > MAX_ENTRIES) file.fail(`${nTensors} tensors and ${nValues} keys cannot be true`)

  const values = new Map<string, GgufValue | ArraySpan>()
  for (let i = 0; i < nValues; i++) {
    const key = cursor.string()
    if (key === '' || values.has(key)) file.fail(`key ${i} is ${key === '' ? 'empty' : `a second '${key}'`}`)
    values.set(key, readValue(cursor, key))
  }
  const alignment = readAlignment(file, values.get('general.alignment'))
  const infos = new Map<string, TensorInfo>()
  let nDataBytes = 0
  for (let i = 0; i < nTensors; i++) {
    const info = readTensorInfo(cursor)
    if (infos.has(info.name)) file.fail(`there are two tensors '${info.name}'`)
    if (info.offset !== nDataBytes) file.fail(`tensor '${info.name}' is at byte ${info.offset} of the data, not ${nDataBytes}`)
    infos.set(info.name, info)
    nDataBytes = padded(nDataBytes + info.nBytes, alignment)
  }
  const dataStart = padded(cursor.offset, alignment)
  return { values, tensors: [...infos.values()].map((info) => inFile(file, info, dataStart)) }
}

function readValue(cursor: Cursor, key: string): GgufValue | ArraySpan {
  const id = cursor.u32()
  if (id === ARRAY_ID) return stepOverArray(cursor, key)
  const kind = scalarKind(id) ?? cursor.file.fail(`the value of '${key}' has the unknown type ${id}`)
  if (kind === 'str') return { kind, value: cursor.string() }
  return { kind, value: cursor.number(NUMBER_KINDS[kind].size, NUMBER_KINDS[kind].get) }
}

function stepOverArray(cursor: Cursor, key: string): ArraySpan {
  const id = cursor.u32()
  const of = scalarKind(id) ?? cursor.file.fail(`the elements of '${key}' have the unknown type ${id}`)
  const length = cursor.u64()
  const offset = cursor.offset
  if (of !== 'str') cursor.skip(length * NUMBER_KINDS[of].size)
  else for (let i = 0; i < length; i++) cursor.skip(cursor.u64())
  return { of, length, offset, nBytes: cursor.offset - offset }
}

function readAlignment(file: ModelFile, entry: GgufValue | ArraySpan | undefined): number {
  if (entry === undefined) return DEFAULT_ALIGNMENT
  const value = 'kind' in entry && entry.kind === 'u32' ? Number(entry.value) : 0
  if (value === 0 || (value & (value - 1)) !== 0) file.fail('general.alignment is not a power of two')
  return value
}

const padded = (n: number, alignment: number): number => Math.ceil(n / alignment) * alignment

/** A tensor's line in the header; its offset still counts from the start of the data. */
function readTensorInfo(cursor: Cursor): TensorInfo {
  const { file } = cursor
  const name = cursor.string()
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) file.fail(`a tensor's name is longer than ${MAX_NAME_BYTES} bytes`)
  const nDims = cursor.u32()
  if (nDims > MAX_DIMS) file.fail(`tensor '${name}' has ${nDims} dimensions`)
  const ne: [number, number, number, number] = [1, 1, 1, 1]
  for (let i = 0; i < nDims; i++) ne[i] = cursor.u64()
  const type = cursor.u32()
  const offset = cursor.u64()
  return { name, type, ne, file: 0, offset, nBytes: tensorBytes(file, { name, type, ne }) }
}

function tensorBytes(file: ModelFile, { name, type, ne }: { name: string; type: number; ne: Shape }): number {
  const info = typeInfo(type) ?? file.unsupported(`tensor '${name}' has type ${type}, which ggml does not have (any more)`)
  const shape = `tensor '${name}' of shape ${ne.join('×')}`
  if (ne.includes(0)) file.fail(`${shape} is empty`)
  if (ne[0] % info.blockSize !== 0) file.fail(`${shape} has rows that are not whole blocks of ${info.blockSize} (${info.name})`)
  const nElements = ne[0] * ne[1] * ne[2] * ne[3] // too large a product is inexact, but still too large
  if (nElements / info.blockSize > file.size / info.blockBytes) file.fail(`${shape} (${info.name}) is larger than the file`)
  return rowBytes(type, ne[0]) * ne[1] * ne[2] * ne[3]
}

function inFile(file: ModelFile, info: TensorInfo, dataStart: number): TensorInfo {
  const offset = dataStart + info.offset
  if (offset + info.nBytes > file.size)
    file.fail(`tensor '${info.name}' ends at byte ${offset + info.nBytes}, but the file has ${file.size}`)
  return { ...info, offset }
}
