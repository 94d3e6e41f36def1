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
export type InputType = keyof typeof ARRAYS
export type InputArray<T extends InputType> = InstanceType<(typeof ARRAYS)[T]>

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

/** Of which part of a step a tensor is, and of which layer; null for what belongs to none. */
export interface Label {
  readonly part: string
  readonly il: number | null
}

/** Thrown by a graph that has no room for one tensor more. */
export class GraphFull extends Error {}

export class Graph extends Ops implements Disposable {
  readonly ptr: Pointer
  readonly #inputs: Input[] = []
  readonly #known = new Map<string, Tensor>()
  readonly #labels = new Map<Pointer, Label>()
  #label: Label = { part: 'other', il: null }
  /** Tensors it has room for, and those that were made. */
  readonly #room: number
  #made = 0

  /**
   * Records a graph with `build`; whenever it is full, again with twice the room. So nothing that a request asks for can make a
   * graph larger than it may be, at which ggml ends the process. `room` is where to begin.
   */
  static record<T>(room: number, build: (g: Graph) => T): { readonly graph: Graph; readonly result: T } {
    for (let size = room; ; size *= 2) {
      const graph = new Graph(size)
      try {
        return { graph, result: build(graph) }
      } catch (error) {
        graph[Symbol.dispose]()
        if (!(error instanceof GraphFull)) throw error
      }
    }
  }

  /** Of up to `room` tensors. `withGradients` makes room for a backward pass, which must fit too. */
  constructor(room: number, withGradients = false) {
    const api = ggml()
    // Leaves (weights, stores) are in the graph besides what is recorded: an operation has at most one of them beside an input.
    const bytes = 2 * room * api.ggml_tensor_overhead() + api.ggml_graph_overhead_custom(2 * room, withGradients)
    const context = api.ggml_init({ mem_size: bytes, mem_buffer: null, no_alloc: true })
    if (context === null) throw new KvasirError('out_of_memory', { bytes, what: 'a graph' })
    super(context)
    this.ptr = api.ggml_new_graph_custom(context, 2 * room, withGradients)
    this.#room = withGradients ? Infinity : room
  }

  /** Tensors recorded so far. */
  get nMade(): number {
    return this.#made
  }

  protected override made(ptr: Pointer, type: number, ne: Shape, nb?: Shape): Tensor {
    if (++this.#made > this.#room) throw new GraphFull(`a graph of more than ${this.#room} tensors`)
    this.#labels.set(ptr, this.#label)
    return super.made(ptr, type, ne, nb)
  }

  /** What `record` makes is of this part, this layer, or both; the innermost of several says. For those who measure. */
  within<T>(label: Partial<Label>, record: () => T): T {
    const outer = this.#label
    this.#label = { ...outer, ...label }
    const result = record()
    this.#label = outer
    return result
  }

  labelOf(ptr: Pointer): Label {
    return this.#labels.get(ptr) ?? this.#label
  }

  /** What `make` gave when it was first asked for under `key`: several layers use the same. */
  once(key: string, make: () => Tensor): Tensor {
    const known = this.#known.get(key) ?? this.within({ il: null }, make)
    this.#known.set(key, known)
    return known
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
