/**
 * From a file to tensors that graphs can use. A model first declares what it needs, by name, shape and use; then everything
 * is placed at once: mapped and read in place where that is possible, copied into a faster layout of the processor where
 * there is one for that very product, converted where the type must change.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import { formatBytes } from '../core/sizes.ts'
import type { Backend } from '../ggml/backend.ts'
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'
import { CAN_MAP_FILES, mapFile, preferHugePages } from '../ggml/memory.ts'
import { nBytes, type Shape, shapeOf, stridesOf, type Tensor } from '../ggml/tensor.ts'
import { BF16, F16, F32, rowBytes, typeInfo, typeName } from '../ggml/types.ts'
import { canConvert, convertRows } from './convert.ts'
import type { TensorInfo, WeightSource } from './source.ts'

const FLOATS: readonly number[] = [F32, F16, BF16]
const USAGE_WEIGHTS = 1
/** Converted between two turns of the event loop. */
const SLAB_BYTES = 8 * 2 ** 20
/** `offsetof(struct ggml_tensor, buffer)` of the pinned version. */
const TENSOR_BUFFER_OFFSET = 8

interface Request {
  readonly tensor: Tensor
  /** Null for a constant computed by us. */
  readonly info: TensorInfo | null
  readonly constant: Float32Array | null
  /** Added to every element. */
  readonly plus: number
  readonly bufferType: Pointer
}

export interface UploadOptions {
  /** Quantise float matrices to this ggml type id. */
  readonly type?: number | undefined
  /** Use the processor's extra layouts. */
  readonly repack: boolean
}

/** What a model asks for its tensors, by name; another one than {@link Uploader} may place them elsewhere. */
export type TensorSource = Pick<Uploader, 'has' | 'matrix' | 'rows' | 'vector' | 'constant'>

export class Uploader {
  readonly #requests: Request[] = []
  readonly #layouts = new Map<string, Pointer>()
  readonly #source: WeightSource
  readonly #backend: Backend
  readonly #options: UploadOptions
  readonly #context: Pointer

  constructor(source: WeightSource, backend: Backend, options: UploadOptions) {
    this.#source = source
    this.#backend = backend
    this.#options = options
    const bytes = (2 * source.tensors.size + 16) * ggml().ggml_tensor_overhead()
    const context = ggml().ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true })
    if (context === null) throw new KvasirError('out_of_memory', { bytes, what: 'tensor descriptions' })
    this.#context = context
  }

  has(name: string): boolean {
    return this.#source.tensors.has(name)
  }

  /** A matrix `[nIn, nOut]` that activations are multiplied by. */
  matrix(name: string, nIn: number, nOut: number): Tensor {
    const info = this.#find(name, shapeOf(nIn, nOut))
    const type = this.#matrixType(info)
    return this.#request(info, type, this.#layoutFor(type, info.ne))
  }

  /** A table `[width, n]` whose rows are looked up; the file has `unused` rows before them. */
  rows(name: string, width: number, n: number, unused = 0): Tensor {
    const info = this.#find(name, shapeOf(width, n + unused))
    const bytes = rowBytes(info.type, width)
    const used = { ...info, ne: shapeOf(width, n), offset: info.offset + unused * bytes, nBytes: n * bytes }
    return this.#request(unused === 0 ? info : used, this.#matrixType(info), this.#backend.bufferType)
  }

  /** A vector `[n]`, always f32, with `plus` added to every element of the file's. */
  vector(name: string, n: number, plus = 0): Tensor {
    const info = this.#find(name, shapeOf(n))
    if (!FLOATS.includes(info.type)) throw this.#invalid(`tensor '${name}' is ${typeName(info.type)}, not a float type`)
    return this.#request(info, F32, this.#backend.bufferType, plus)
  }

  constant(values: Float32Array): Tensor {
    const tensor = this.#describe(F32, shapeOf(values.length))
    this.#requests.push({ tensor, info: null, constant: values, plus: 0, bufferType: this.#backend.bufferType })
    return tensor
  }

  /** Bytes that {@link place} takes, told without reading anything: those of mapped tensors, and of buffers for all others. */
  get bytes(): number {
    const mapped = this.#requests.filter((request) => CAN_MAP_FILES && this.#isInPlace(request))
    const copied = this.#requests.filter((request) => !mapped.includes(request))
    const buffers = [...byBufferType(copied)].flatMap(([type, tensors]) => sizesIn(type, tensors))
    return [...mapped.map(({ info }) => info!.nBytes), ...buffers].reduce((sum, bytes) => sum + bytes, 0)
  }

  /** Reads, maps or converts everything that was asked for. */
  async place(onProgress?: (fraction: number) => void, signal?: AbortSignal): Promise<Weights> {
    const weights = new Weights(this.#context, this.#source)
    try {
      const total = this.#requests.reduce((sum, { tensor }) => sum + nBytes(tensor), 0)
      const copied = this.#requests.filter((request) => !(this.#isInPlace(request) && weights.map(request.tensor, request.info!)))
      let done = total - copied.reduce((sum, { tensor }) => sum + nBytes(tensor), 0)
      for (const [bufferType, tensors] of byBufferType(copied)) {
        weights.allocate(bufferType, tensors)
        for (const request of copied.filter((each) => each.bufferType === bufferType)) {
          signal?.throwIfAborted()
          await weights.copy(request.tensor, await this.#data(request, weights))
          done += nBytes(request.tensor)
          onProgress?.(done / total)
        }
      }
      onProgress?.(1)
      return weights
    } catch (error) {
      weights[Symbol.dispose]()
      throw signal?.aborted ? new KvasirError('aborted') : error
    }
  }

  [Symbol.dispose](): void {
    ggml().ggml_free(this.#context)
  }

  #find(name: string, ne: Shape): TensorInfo {
    const info = this.#source.tensors.get(name)
    if (!info) throw this.#invalid(`it has no tensor '${name}'`)
    if (info.ne.every((n, i) => n === ne[i])) return info
    throw this.#invalid(`tensor '${name}' is [${info.ne.join(', ')}], but the hyper-parameters want [${ne.join(', ')}]`)
  }

  #matrixType({ name, type, ne }: TensorInfo): number {
    if (!typeInfo(type)?.matrix) {
      throw new KvasirError('model_unsupported', { path: this.#source.path, reason: `tensor '${name}' is ${typeName(type)}` })
    }
    const wanted = this.#options.type
    if (wanted === undefined || wanted === type) return type
    if (!FLOATS.includes(type)) {
      throw new KvasirError('usage', { reason: `--type ${typeName(wanted)}: tensor '${name}' is already ${typeName(type)}` })
    }
    return canConvert(type, wanted, ne[0]) ? wanted : type
  }

  /** The first layout that takes this product; as llama.cpp's loader does, the device is asked with the very operation. */
  #layoutFor(type: number, ne: Shape): Pointer {
    if (!this.#options.repack) return this.#backend.bufferType
    const key = `${type}:${ne.join(',')}`
    const known = this.#layouts.get(key)
    if (known !== undefined) return known
    const found = this.#backend.extraBufferTypes.find((layout) => supportsProduct(this.#backend, layout, type, ne))
    this.#layouts.set(key, found ?? this.#backend.bufferType)
    return found ?? this.#backend.bufferType
  }

  #request(info: TensorInfo, type: number, bufferType: Pointer, plus = 0): Tensor {
    // A tied output shares the embedding's tensor unless it lies in a layout of its own.
    const same = this.#requests.find((r) => r.info === info && r.bufferType === bufferType && r.tensor.type === type)
    if (same) return same.tensor
    // Floats lie in these layouts as they do elsewhere.
    const isPacked = bufferType !== this.#backend.bufferType && !FLOATS.includes(type)
    const tensor: Tensor = { ...this.#describe(type, info.ne), ...(isPacked && { isPacked }) }
    ggml().ggml_set_name(tensor.ptr, info.name.slice(0, 63))
    this.#requests.push({ tensor, info, constant: null, plus, bufferType })
    return tensor
  }

  #describe(type: number, ne: Shape): Tensor {
    return { ptr: ggml().ggml_new_tensor_4d(this.#context, type, ...ne), type, ne, nb: stridesOf(type, ne) }
  }

  /** Whether it can be read where it lies in its file. */
  #isInPlace({ tensor, info, plus, bufferType }: Request): boolean {
    if (info === null || plus !== 0 || info.type !== tensor.type || bufferType !== this.#backend.bufferType) return false
    // safetensors align to 8 bytes only; kernels read unaligned, but not across elements.
    return info.offset % 4 === 0
  }

  async #data(request: Request, weights: Weights): Promise<NodeJS.ArrayBufferView> {
    const { info, constant, plus } = request
    if (info === null) return constant!
    const bytes = await this.#converted(request, info, weights.read(info))
    return plus === 0 ? bytes : new Float32Array(bytes.slice().buffer).map((x) => x + plus)
  }

  async #converted({ tensor }: Request, info: TensorInfo, bytes: Uint8Array): Promise<Uint8Array> {
    if (info.type === tensor.type) return bytes
    const rowLength = info.ne[0]
    const [from, to] = [rowBytes(info.type, rowLength), rowBytes(tensor.type, rowLength)]
    const slab = Math.max(1, Math.floor(SLAB_BYTES / from))
    const converted = new Uint8Array(nBytes(tensor))
    for (let row = 0; row * from < bytes.length; row += slab) {
      const piece = bytes.subarray(row * from, (row + slab) * from)
      converted.set(convertRows(piece, { from: info.type, to: tensor.type, nRows: piece.length / from, rowLength }), row * to)
      await setImmediate() // so that a server answers while it loads
    }
    return converted
  }

  #invalid(reason: string): KvasirError {
    return new KvasirError('model_invalid', { path: this.#source.path, reason })
  }
}

/** Placed weights: they live until this is disposed. */
export class Weights implements Disposable {
  /** Bytes of copies and of mapped tensors. */
  bytes = 0
  readonly #context: Pointer
  readonly #source: WeightSource
  readonly #buffers: Pointer[] = []
  readonly #files = new Map<number, { readonly map: NonNullable<ReturnType<typeof mapFile>>; readonly buffer: Pointer } | null>()

  constructor(context: Pointer, source: WeightSource) {
    this.#context = context
    this.#source = source
  }

  /** Places `tensor` in the mapped file; false where the platform cannot. */
  map(tensor: Tensor, info: TensorInfo): boolean {
    const file = this.#open(info.file)
    if (file === null) return false
    ggml().ggml_backend_tensor_alloc(file.buffer, tensor.ptr, file.map.at + BigInt(info.offset))
    this.bytes += info.nBytes
    return true
  }

  /** One buffer of `bufferType` for all of `tensors`. */
  allocate(bufferType: Pointer, tensors: readonly Tensor[]): void {
    const api = ggml()
    const sizes = sizesIn(bufferType, tensors)
    const bytes = sizes.reduce((sum, size) => sum + size, 0)
    const buffer = api.ggml_backend_buft_alloc_buffer(bufferType, bytes)
    if (buffer === null) throw new KvasirError('out_of_memory', { bytes, what: `weights (${formatBytes(bytes)})` })
    this.#buffers.push(buffer)
    this.bytes += bytes
    api.ggml_backend_buffer_set_usage(buffer, USAGE_WEIGHTS)
    let at = api.ggml_backend_buffer_get_base(buffer)
    preferHugePages(at, bytes)
    for (const [i, { ptr }] of tensors.entries()) {
      api.ggml_backend_tensor_alloc(buffer, ptr, at)
      at += BigInt(sizes[i]!)
    }
  }

  /** Copies `data` into the tensor's layout, on a worker thread: repacking takes a while. */
  copy(tensor: Tensor, data: NodeJS.ArrayBufferView): Promise<void> {
    return ggml().tensorSetAsync(tensor.ptr, data, nBytes(tensor))
  }

  /** The bytes of a tensor in its file. */
  read(info: TensorInfo): Uint8Array {
    const file = this.#open(info.file)
    if (file !== null) return new Uint8Array(koffi.view(file.map.at + BigInt(info.offset), info.nBytes))
    const bytes = new Uint8Array(info.nBytes)
    const descriptor = openSync(this.#source.files[info.file]!, 'r')
    try {
      for (let at = 0; at < bytes.length;) {
        const n = readSync(descriptor, bytes, at, Math.min(bytes.length - at, 2 ** 30), info.offset + at)
        if (n === 0) throw new KvasirError('model_invalid', { path: this.#source.path, reason: `it ends within '${info.name}'` })
        at += n
      }
    } finally {
      closeSync(descriptor)
    }
    return bytes
  }

  #open(file: number) {
    const known = this.#files.get(file)
    if (known !== undefined) return known
    const map = mapFile(this.#source.files[file]!)
    const buffer = map && ggml().ggml_backend_cpu_buffer_from_ptr(map.at, map.bytes)
    const opened = map && buffer ? { map, buffer } : null
    if (opened) ggml().ggml_backend_buffer_set_usage(opened.buffer, USAGE_WEIGHTS)
    this.#files.set(file, opened)
    return opened
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) ggml().ggml_backend_buffer_free(buffer)
    for (const file of this.#files.values()) {
      if (!file) continue
      ggml().ggml_backend_buffer_free(file.buffer)
      file.map[Symbol.dispose]()
    }
    ggml().ggml_free(this.#context)
  }
}

/** Tensors that go into one buffer each. */
function byBufferType(requests: readonly Request[]): Map<Pointer, readonly Tensor[]> {
  const groups = new Map<Pointer, Tensor[]>()
  for (const { bufferType, tensor } of requests) groups.set(bufferType, [...(groups.get(bufferType) ?? []), tensor])
  return groups
}

/** What each of `tensors` takes of a buffer of this type. */
function sizesIn(bufferType: Pointer, tensors: readonly Tensor[]): number[] {
  const api = ggml()
  const alignment = api.ggml_backend_buft_get_alignment(bufferType)
  return tensors.map(({ ptr }) => Math.ceil(api.ggml_backend_buft_get_alloc_size(bufferType, ptr) / alignment) * alignment)
}

/** Whether weights of this type and shape can lie in `layout` and be multiplied there. */
function supportsProduct(backend: Backend, layout: Pointer, type: number, ne: Shape): boolean {
  const api = ggml()
  const context = api.ggml_init({ mem_size: 4 * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
  const empty = api.ggml_backend_buft_alloc_buffer(layout, 0)
  if (context === null || empty === null) return false
  try {
    const weight = api.ggml_new_tensor_4d(context, type, ...ne)
    const product = api.ggml_mul_mat(context, weight, api.ggml_new_tensor_4d(context, F32, ne[0], 512, 1, 1))
    koffi.encode(weight, TENSOR_BUFFER_OFFSET, 'void *', empty)
    return api.ggml_backend_dev_supports_op(backend.device, product)
  } finally {
    api.ggml_backend_buffer_free(empty)
    api.ggml_free(context)
  }
}
