/**
 * The memory of a cache on the device that computes: reserved address space, taken page by page as it is written. It is the only
 * holder of addresses; whoever stores something in it speaks of offsets.
 */
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'
import { Reservation } from '../ggml/memory.ts'
import { type Shape, stridesOf, type Tensor } from '../ggml/tensor.ts'

export class KvBuffer implements Disposable {
  readonly #memory: Reservation
  readonly #buffer: Pointer
  readonly #context: Pointer
  #disposed = false

  /** Room for so many bytes, and for the descriptions of so many tensors. Errors: `out_of_memory`. */
  constructor(bytes: number, nTensors: number, what: string) {
    const api = ggml()
    this.#memory = new Reservation(bytes, what)
    const context = api.ggml_init({ mem_size: nTensors * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
    const buffer = api.ggml_backend_cpu_buffer_from_ptr(this.#memory.at, this.#memory.bytes)
    if (context === null || buffer === null) throw new KvasirError('out_of_memory', { bytes, what })
    this.#context = context
    this.#buffer = buffer
  }

  /** First byte of the address space, and how many there are. */
  get address(): Pointer {
    return this.#memory.at
  }

  get bytes(): number {
    return this.#memory.bytes
  }

  get isDisposed(): boolean {
    return this.#disposed
  }

  /** The memory from `offset` on as a contiguous tensor. */
  tensor(type: number, ne: Shape, offset: number): Tensor {
    const ptr = ggml().ggml_new_tensor_4d(this.#context, type, ...ne)
    ggml().ggml_backend_tensor_alloc(this.#buffer, ptr, this.#memory.at + BigInt(offset))
    return { ptr, type, ne, nb: stridesOf(type, ne) }
  }

  /** The bytes themselves, to be read and written between computations. */
  view(offset: number, bytes: number): ArrayBuffer {
    return koffi.view(this.#memory.at + BigInt(offset), bytes)
  }

  /** Gives the pages that lie wholly in `[from, to)` back; they read as zeros again. */
  discard(from: number, to: number): void {
    this.#memory.discard(from, to)
  }

  /** Puts `[from, to)`, all of it in use, into large pages. */
  collapse(from: number, to: number): void {
    this.#memory.collapse(from, to)
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    ggml().ggml_backend_buffer_free(this.#buffer)
    ggml().ggml_free(this.#context)
    this.#memory[Symbol.dispose]()
  }
}
