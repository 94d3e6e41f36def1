/** What computing anything by itself costs: the call, waking the threads, waiting for them. It is taken off from pieces. */
import { DEVICE_TYPE_CPU } from '../ggml/backend.ts'
import { Graph, Scratch } from '../ggml/graph.ts'
import { ggml } from '../ggml/library.ts'
import { piecesOf } from '../ggml/pieces.ts'
import { F32 } from '../ggml/types.ts'
import { median } from './statistics.ts'

const TRIES = 32

export class PieceCost implements Disposable {
  readonly #graph = new Graph(8)
  readonly #scratch: Scratch
  readonly #view: Uint8Array
  readonly #samples: number[] = []

  constructor() {
    const api = ggml()
    this.#scratch = new Scratch(api.ggml_backend_dev_buffer_type(api.ggml_backend_dev_by_type(DEVICE_TYPE_CPU)!))
    // One number, in an operation that all threads take part in.
    const one = this.#graph.input(F32, [1], (data) => data.fill(1))
    this.#graph.output(this.#graph.add(one, one))
    this.#graph.plan(this.#scratch)
    this.#graph.fillInputs()
    this.#view = piecesOf(this.#graph)[0]!.view
  }

  /** Measures it, right before pieces are measured. */
  sample(compute: (view: Uint8Array) => number): void {
    for (let i = 0; i < TRIES; i++) {
      const start = performance.now()
      compute(this.#view)
      this.#samples.push((performance.now() - start) / 1000)
    }
  }

  get seconds(): number {
    return this.#samples.length > 0 ? median(this.#samples) : 0
  }

  [Symbol.dispose](): void {
    this.#graph[Symbol.dispose]()
    this.#scratch[Symbol.dispose]()
  }
}
