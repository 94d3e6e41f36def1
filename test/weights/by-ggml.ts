/** The same file through ggml's own reader, to compare with ours. */
import koffi from 'koffi'
import { ggml } from '../../src/ggml/library.ts'
import { ARRAY_ID, NUMBER_KINDS, type ScalarKind, scalarKind } from '../../src/weights/gguf-values.ts'
import type { WeightSource } from '../../src/weights/source.ts'

export interface ByGgml {
  readonly values: Map<string, { readonly kind: string; readonly value: unknown }>
  readonly tensors: {
    readonly name: string
    readonly type: number
    readonly ne: number[]
    readonly offset: number
    readonly nBytes: number
  }[]
}

/** Null where ggml refuses the file. */
export function readByGgml(path: string): ByGgml | null {
  const api = ggml()
  const gguf = api.gguf_init_from_file(path, { no_alloc: true, ctx: null })
  if (gguf === null) return null
  const numbers = (kind: Exclude<ScalarKind, 'str'>, address: bigint | null, n: number) => {
    const { size, get } = NUMBER_KINDS[kind]
    if (n === 0) return []
    const view = new DataView(koffi.view(address, n * size))
    return Array.from({ length: n }, (_, i) => get(view, i * size))
  }
  const values: ByGgml['values'] = new Map()
  for (let i = 0; i < api.gguf_get_n_kv(gguf); i++) {
    const id = api.gguf_get_kv_type(gguf, i)
    const isArray = id === ARRAY_ID
    const kind = scalarKind(isArray ? api.gguf_get_arr_type(gguf, i) : id)!
    const n = isArray ? api.gguf_get_arr_n(gguf, i) : 1
    let elements: unknown[]
    if (kind !== 'str') elements = numbers(kind, isArray ? api.gguf_get_arr_data(gguf, i) : api.gguf_get_val_data(gguf, i), n)
    else if (isArray) elements = Array.from({ length: n }, (_, j) => api.gguf_get_arr_str(gguf, i, j))
    else elements = [api.gguf_get_val_str(gguf, i)]
    values.set(api.gguf_get_key(gguf, i), isArray ? { kind: `${kind}[]`, value: elements } : { kind, value: elements[0] })
  }
  const dataStart = api.gguf_get_data_offset(gguf)
  const tensors = Array.from({ length: api.gguf_get_n_tensors(gguf) }, (_, i) => ({
    name: api.gguf_get_tensor_name(gguf, i),
    type: api.gguf_get_tensor_type(gguf, i),
    ne: numbers('i64', api.gguf_get_tensor_ne(gguf, i), 4) as number[],
    offset: dataStart + api.gguf_get_tensor_offset(gguf, i),
    nBytes: api.gguf_get_tensor_size(gguf, i),
  }))
  api.gguf_free(gguf)
  return { values, tensors }
}

/** What our reader must say of the file, in the same form. */
export function tensorsOf(source: WeightSource): ByGgml['tensors'] {
  return [...source.tensors.values()].map(({ name, type, ne, offset, nBytes }) => ({ name, type, ne: [...ne], offset, nBytes }))
}
