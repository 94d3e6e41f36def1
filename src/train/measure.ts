/** An objective's loss, computed: with gradients for a step, or alone on held-out text. */
import { KvasirError } from '../core/errors.ts'
import type { Backend } from '../ggml/backend.ts'
import { Graph, Scratch } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { batchInputs } from './batch.ts'
import type { Objective } from './objective.ts'
import type { TrainOptions } from './run-settings.ts'
import type { TrainText } from './text.ts'
import { FORWARD_ROOM, TrainGraph } from './train-graph.ts'

/** A recorded loss that takes one batch after another. */
class Loss implements Disposable {
  readonly #backend: Backend
  readonly #graph: Graph
  readonly #scratch: Scratch
  readonly #loss: Tensor
  #windows: readonly Int32Array[] = []

  constructor(backend: Backend, { objective, options, weight }: LossOptions) {
    const { nTokens, nSequences } = options
    this.#backend = backend
    const { parameters, nVocab } = objective
    const record = (g: Graph): Tensor => {
      const batch = batchInputs(g, { nTokens, nSequences, nVocab }, () => this.#windows)
      return weight === null && objective.measured ? objective.measured(g, batch) : objective.loss(g, batch)
    }
    if (weight === null) {
      const { graph, result } = Graph.record(FORWARD_ROOM, (g) => g.output(record(g)))
      this.#graph = graph
      this.#loss = result
    } else {
      const graph = TrainGraph.withRoomFor(parameters.all(), record)
      this.#graph = graph
      this.#loss = record(graph)
      graph.backward(this.#loss, parameters.all(), weight)
    }
    this.#scratch = new Scratch(backend.bufferType)
    this.#graph.plan(this.#scratch)
  }

  /** The loss of a batch; null if the signal stopped it. */
  async compute(windows: readonly Int32Array[], signal: AbortSignal | undefined): Promise<number | null> {
    if (signal?.aborted) return null
    this.#windows = windows
    this.#graph.fillInputs()
    const interrupt = () => this.#backend.interrupt()
    signal?.addEventListener('abort', interrupt)
    try {
      await this.#backend.compute(this.#graph, false)
    } catch (error) {
      if (error instanceof KvasirError && error.code === 'aborted') return null
      throw error
    } finally {
      signal?.removeEventListener('abort', interrupt)
    }
    return this.#graph.read(this.#loss, new Float32Array(1))[0]!
  }

  [Symbol.dispose](): void {
    this.#graph[Symbol.dispose]()
    this.#scratch[Symbol.dispose]()
  }
}

interface LossOptions {
  readonly objective: Objective
  readonly options: TrainOptions
  /** What gradients are multiplied by; null for none. */
  readonly weight: number | null
}

export class Measure implements Disposable {
  readonly #backend: Backend
  readonly #objective: Objective
  readonly #options: TrainOptions
  #plain: Loss | null = null

  constructor(backend: Backend, objective: Objective, options: TrainOptions) {
    this.#backend = backend
    this.#objective = objective
    this.#options = options
  }

  /** The loss whose computation adds to the gradients. */
  withGradients(): Loss {
    const weight = 1 / this.#options.accumulate
    return new Loss(this.#backend, { objective: this.#objective, options: this.#options, weight })
  }

  /** The mean over windows from all over the held-out text; null if there are none, or if it was stopped. */
  async heldOut({ heldOut, bos }: TrainText, signal?: AbortSignal): Promise<number | null> {
    const { nTokens, nSequences, measureBatches } = this.#options
    if (heldOut.length === 0) return null
    this.#plain ??= new Loss(this.#backend, { objective: this.#objective, options: this.#options, weight: null })
    const nBatches = Math.max(1, Math.min(measureBatches, Math.floor(heldOut.length / nSequences)))
    const n = nBatches * nSequences
    let sum = 0
    for (let i = 0; i < nBatches; i++) {
      const windows = Array.from({ length: nSequences }, (_, b) => {
        const window = heldOut[Math.floor(((i * nSequences + b) * heldOut.length) / n)]!
        return bos === null ? window : Int32Array.of(bos, ...window.subarray(0, nTokens))
      })
      const loss = await this.#plain.compute(windows, signal)
      if (loss === null) return null
      sum += loss
    }
    return sum / nBatches
  }

  [Symbol.dispose](): void {
    this.#plain?.[Symbol.dispose]()
  }
}
