/**
 * A tensor that may be trained: its values, and if it is trained its gradient and AdamW's two moments, all f32 in memory of
 * its own, where JavaScript reads and writes them too.
 */
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Backend } from '../ggml/backend.ts'
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'
import { nElements, type Shape, shapeOf, stridesOf, type Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'

/** A tensor, and its elements where they lie; gone with the parameter. */
export interface Block {
  readonly tensor: Tensor
  readonly data: Float32Array
}

export interface Trained {
  readonly gradient: Block
  /** AdamW's moving means of the gradient and of its square. */
  readonly m: Block
  readonly v: Block
}

export class Parameter implements Disposable {
  readonly name: string
  readonly ne: Shape
  /** What graphs read; gradients flow into it if it is trained. */
  readonly tensor: Tensor
  /** The same memory, without gradients: for passes that shall not be differentiated. */
  readonly constant: Tensor
  readonly data: Float32Array
  /** Null while it is frozen. */
  readonly trained: Trained | null
  /** Weight decay is for matrices: vectors are norms and biases. */
  readonly decays: boolean
  readonly #context: Pointer
  readonly #buffer: Pointer

  /** Zeros of shape `ne`. */
  constructor(
    backend: Backend,
    name: string,
    { ne, isTrained }: { readonly ne: readonly number[]; readonly isTrained: boolean },
  ) {
    const api = ggml()
    this.name = name
    this.ne = shapeOf(...ne)
    this.decays = this.ne[1] > 1
    const alignment = api.ggml_backend_buft_get_alignment(backend.bufferType)
    const blockBytes = Math.ceil((nElements(this.ne) * 4) / alignment) * alignment
    const bytes = (isTrained ? 4 : 1) * blockBytes
    const context = api.ggml_init({ mem_size: 5 * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
    const buffer = context === null ? null : api.ggml_backend_buft_alloc_buffer(backend.bufferType, bytes)
    if (context === null || buffer === null) {
      if (context !== null) api.ggml_free(context)
      throw new KvasirError('out_of_memory', { bytes, what: `training '${name}'` })
    }
    this.#context = context
    this.#buffer = buffer
    const base = api.ggml_backend_buffer_get_base(buffer)
    const block = (i: number): Block => this.#block(base + BigInt(i * blockBytes))
    const values = block(0)
    this.tensor = values.tensor
    this.data = values.data
    this.constant = isTrained ? block(0).tensor : this.tensor
    this.trained = isTrained ? { gradient: block(1), m: block(2), v: block(3) } : null
    if (isTrained) api.ggml_set_param(this.tensor.ptr)
  }

  #block(at: Pointer): Block {
    const api = ggml()
    const ptr = api.ggml_new_tensor_4d(this.#context, F32, ...this.ne)
    api.ggml_backend_tensor_alloc(this.#buffer, ptr, at)
    const data = new Float32Array(koffi.view(at, nElements(this.ne) * 4)).fill(0)
    return { tensor: { ptr, type: F32, ne: this.ne, nb: stridesOf(F32, this.ne) }, data }
  }

  [Symbol.dispose](): void {
    ggml().ggml_backend_buffer_free(this.#buffer)
    ggml().ggml_free(this.#context)
  }
}
