/**
 * A computation: operations recorded once, its scratch memory planned by ggml, then computed as often as its shapes fit.
 * What changes from one computation to the next comes in through inputs, which are filled anew each time.
 */
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from './bindings.ts'
import { ggml } from './library.ts'
import { Ops } from './ops.ts'
import { nBytes, type Shape, shapeOf, type Tensor } from './tensor.ts'
import { F16, F32, I32 } from './types.ts'

const ARRAYS = { [F32]: Float32Array, [F16]: Uint16Array, [I32]: Int32Array } as const
type InputType = keyof typeof ARRAYS
type InputArray<T extends InputType> = InstanceType<(typeof ARRAYS)[T]>

interface Input {
  readonly tensor: Tensor
  /** Writes the tensor's memory; null until it has a place, and if nothing reads it. */
  write: (() => void) | null
  readonly writeTo: (memory: ArrayBuffer) => void
}

/** Scratch memory that graphs use one after another; it grows to what the largest of them needs. */
export class Scratch implements Disposable {
  readonly ptr: Pointer

  constructor(bufferType: Pointer) {
    const ptr = ggml().ggml_gallocr_new(bufferType)
    if (ptr === null) throw new KvasirError('out_of_memory', { bytes: 0, what: 'the graph allocator' })
    this.ptr = ptr
  }

  get bytes(): number {
    return ggml().ggml_gallocr_get_buffer_size(this.ptr, 0)
  }

  [Symbol.dispose](): void {
    ggml().ggml_gallocr_free(this.ptr)
  }
}

export class Graph extends Ops implements Disposable {
  readonly ptr: Pointer
  readonly #inputs: Input[] = []

  /** `withGradients` makes room for a backward pass; its nodes count too. */
  constructor(maxNodes: number, withGradients = false) {
    const api = ggml()
    // Leaves and views are tensors too, so there may be more of them than of nodes.
    const bytes = 2 * maxNodes * api.ggml_tensor_overhead() + api.ggml_graph_overhead_custom(maxNodes, withGradients)
    const context = api.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true })
    if (context === null) throw new KvasirError('out_of_memory', { bytes, what: 'a graph' })
    super(context)
    this.ptr = api.ggml_new_graph_custom(context, maxNodes, withGradients)
  }

  /** A tensor whose elements `fill` writes, all of them, before every computation. */
  input<T extends InputType>(type: T, ne: readonly number[], fill: (data: InputArray<T>) => void): Tensor {
    const shape: Shape = shapeOf(...ne)
    const tensor = this.made(this.api.ggml_new_tensor_4d(this.context, type, ...shape), type, shape)
    this.api.ggml_set_input(tensor.ptr)
    const input: Input = {
      tensor,
      write: null,
      writeTo: (memory) => {
        const data = new ARRAYS[type](memory) as InputArray<T>
        input.write = () => fill(data)
      },
    }
    this.#inputs.push(input)
    return tensor
  }

  /** Makes `t` part of the computation, after everything expanded before it. */
  expand(t: Tensor): Tensor {
    this.api.ggml_build_forward_expand(this.ptr, t.ptr)
    return t
  }

  /** Like {@link expand}; its data stays readable after the computation. */
  output(t: Tensor): Tensor {
    this.api.ggml_set_output(t.ptr)
    return this.expand(t)
  }

  get nNodes(): number {
    return this.api.ggml_graph_n_nodes(this.ptr)
  }

  /** Gives every tensor its place in `scratch`. A graph planned there before must not be computed any more. */
  plan(scratch: Scratch): void {
    if (!this.api.ggml_gallocr_alloc_graph(scratch.ptr, this.ptr)) {
      throw new KvasirError('out_of_memory', { bytes: scratch.bytes, what: 'the scratch memory of a step' })
    }
    for (const { tensor, writeTo } of this.#inputs) {
      const at = this.api.ggml_get_data(tensor.ptr)
      if (at !== null) writeTo(koffi.view(at, nBytes(tensor)))
    }
  }

  fillInputs(): void {
    for (const { write } of this.#inputs) write?.()
  }

  read(t: Tensor, into: Float32Array): Float32Array {
    this.api.ggml_backend_tensor_get(t.ptr, into, 0, nBytes(t))
    return into
  }

  [Symbol.dispose](): void {
    this.api.ggml_free(this.context)
  }
}
