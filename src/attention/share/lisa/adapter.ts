/** A LiSA adapter in memory, as graphs use it: read from its file, checked, and freed when nothing uses it any more. */
import { KvasirError } from '../../../core/errors.ts'
import type { ModelShape } from '../../../core/shape.ts'
import { DEVICE_TYPE_CPU } from '../../../ggml/backend.ts'
import type { Pointer } from '../../../ggml/bindings.ts'
import { ggml } from '../../../ggml/library.ts'
import { nBytes, shapeOf, stridesOf, type Tensor } from '../../../ggml/tensor.ts'
import { F16, F32, typeName } from '../../../ggml/types.ts'
import { type GgufSource, openGguf } from '../../../weights/gguf.ts'
import { readTensor } from '../../../weights/read-tensor.ts'
import { attentionInvalid } from '../refusals.ts'
import {
  LISA_ARCHITECTURE,
  LISA_KEYS,
  lisaName,
  lisaShapes,
  type LisaShapes,
  type LisaSizes,
  type LisaTensor,
  lisaTensors,
} from './adapter-file.ts'

const MOST_HIDDEN = 2 ** 16

/** One layer, ready for graphs. Matrices over heads are transposed: the result's heads in dimension 0. */
export interface LisaLayer {
  /** [nEmbd, H · r] and [nEmbd, G · r]. */
  readonly q: Tensor
  readonly k: Tensor
  /** [H, H] */
  readonly align: Tensor
  /** [m, H] and [H, m], or null. */
  readonly network: { readonly inner: Tensor; readonly outer: Tensor } | null
  /** f32[r / 2] */
  readonly ropeFactors: Tensor
}

export interface LisaAdapter extends LisaSizes {
  readonly layers: ReadonlyMap<number, LisaLayer>
}

/** Memory of adapters that nothing uses any more is freed. */
const released = new FinalizationRegistry<{ readonly context: Pointer; readonly buffer: Pointer }>(({ context, buffer }) => {
  ggml().ggml_backend_buffer_free(buffer)
  ggml().ggml_free(context)
})

/** By the layers of a model: its shape may exist in several versions. */
const adapters = new WeakMap<ModelShape['layers'], Map<string, LisaAdapter>>()
/** Of a model; requests may name any number. */
const MOST_ADAPTERS = 8

/**
 * The adapter in `path`, read once for a model. Errors: `attention_invalid` for what is none or another model's, `file_error`,
 * and those of {@link openGguf}.
 */
export function lisaAdapter(path: string, shape: ModelShape): LisaAdapter {
  const known = adapters.get(shape.layers) ?? new Map<string, LisaAdapter>()
  adapters.set(shape.layers, known)
  const found = known.get(path)
  if (found) return found
  using source = openGguf(path)
  const made = load(source, shape)
  if (known.size === MOST_ADAPTERS) known.clear()
  known.set(path, made)
  return made
}

function load(source: GgufSource, shape: ModelShape): LisaAdapter {
  const fail = (reason: string): never => {
    throw attentionInvalid(`'${source.path}' ${reason}`)
  }
  const count = (key: string, most: number): number => {
    const value = source.metadata(key)
    return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= most ? Number(value) : fail(`has no usable ${key}`)
  }
  if (source.metadata('general.architecture') !== LISA_ARCHITECTURE) fail('is no LiSA adapter')
  const base = source.metadata(LISA_KEYS.base)
  if (shape.base && base !== shape.base.fingerprint)
    fail(`was made for another model than '${shape.base.path}': for one of fingerprint ${String(base).slice(0, 32)}`)
  const sizes = { rank: count(LISA_KEYS.rank, shape.headDim), hidden: count(LISA_KEYS.hidden, MOST_HIDDEN) }
  if (sizes.rank % 2 !== 0 || sizes.rank === 0) fail(`has rank ${sizes.rank}, and pairs are rotated`)
  const layers = source.metadata(LISA_KEYS.layers)
  if (!Array.isArray(layers) || !layers.every((il) => Number.isInteger(il) && il > 0 && il < shape.nLayer))
    return fail(`has no list of layers from 1 to ${shape.nLayer - 1}`)
  return place(source, { shapes: lisaShapes(shape, sizes), sizes, layers: layers as number[], fail })
}

interface Content {
  readonly shapes: LisaShapes
  readonly sizes: LisaSizes
  readonly layers: readonly number[]
  readonly fail: (reason: string) => never
}

/** Everything in one buffer. */
function place(source: GgufSource, { shapes, sizes, layers, fail }: Content): LisaAdapter {
  const api = ggml()
  const all = layers.flatMap((il) => lisaTensors(sizes).map((tensor) => ({ il, tensor, ...read(source, il, tensor) })))
  const device = api.ggml_backend_dev_by_type(DEVICE_TYPE_CPU)!
  const type = api.ggml_backend_dev_buffer_type(device)
  const alignment = api.ggml_backend_buft_get_alignment(type)
  const padded = (n: number) => Math.ceil(n / alignment) * alignment
  const bytes = all.reduce((sum, { data }) => sum + padded(data.byteLength), alignment)
  const context = api.ggml_init({ mem_size: (all.length + 1) * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
  const buffer = context === null ? null : api.ggml_backend_buft_alloc_buffer(type, bytes)
  if (context === null || buffer === null) {
    if (context !== null) api.ggml_free(context)
    throw new KvasirError('out_of_memory', { bytes, what: `the adapter '${source.path}'` })
  }
  let at = api.ggml_backend_buffer_get_base(buffer)
  const placed = new Map<string, Tensor>()
  for (const { il, tensor, type, ne: given, data } of all) {
    const ne = shapeOf(...given)
    const ptr = api.ggml_new_tensor_4d(context, type, ...ne)
    const made = { ptr, type, ne, nb: stridesOf(type, ne) }
    api.ggml_backend_tensor_alloc(buffer, ptr, at)
    api.ggml_backend_tensor_set(ptr, data, 0, nBytes(made))
    at += BigInt(padded(data.byteLength))
    placed.set(`${il}.${tensor}`, made)
  }
  const layer = (il: number): LisaLayer => {
    const of = (tensor: LisaTensor) => placed.get(`${il}.${tensor}`)!
    const network = sizes.hidden > 0 ? { inner: of('inner'), outer: of('outer') } : null
    return { q: of('q'), k: of('k'), align: of('align'), network, ropeFactors: of('period') }
  }
  const adapter = { ...sizes, layers: new Map(layers.map((il) => [il, layer(il)])) }
  // What a setting at work holds on to is the layers, not the adapter.
  released.register(adapter.layers, { context, buffer })
  return adapter

  function read(from: GgufSource, il: number, tensor: LisaTensor) {
    const name = lisaName(il, tensor)
    const info = from.tensors.get(name) ?? fail(`has no tensor '${name}'`)
    const wanted = shapes[tensor]
    if (!info.ne.every((n, i) => n === (wanted[i] ?? 1)))
      fail(`has '${name}' as [${info.ne.join(', ')}], not [${wanted.join(', ')}]`)
    const isProjection = tensor === 'q' || tensor === 'k'
    if (info.type !== F32 && !(isProjection && info.type === F16)) fail(`has '${name}' as ${typeName(info.type)}`)
    const raw = readTensor(from, info)
    const data = info.type === F16 ? new Uint16Array(raw.buffer) : new Float32Array(raw.buffer)
    const isUsable = info.type === F16 ? (bits: number) => (bits & 0x7c00) !== 0x7c00 : Number.isFinite
    if (!data.every(tensor === 'period' ? (x) => x > 0 : isUsable)) fail(`has numbers in '${name}' that cannot be`)
    if (isProjection || tensor === 'period') return { type: info.type, ne: wanted, data }
    const [nIn, nOut] = wanted as [number, number]
    return { type: F32, ne: [nOut, nIn], data: data.map((_, i) => data[(i % nOut) * nIn + Math.floor(i / nOut)]!) }
  }
}
