/**
 * Graphs of steps and when they are made. A graph is recorded once per key of a step and computed again while the key repeats,
 * which in decoding it does for a whole tile of tokens; the runner and the conformance tests go the same way.
 */
import { buildStep, factsOf, type Step, stepKey, type StepChunk } from '../attention/step.ts'
import type { ChunkFacts } from '../attention/attention.ts'
import type { Backend } from '../ggml/backend.ts'
import { Graph, Scratch } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'

/** A step whose graph is recorded, filled and ready. */
export interface Planned {
  readonly graph: Graph
  /** What was recorded last; null if nothing is wanted but what fills the caches. */
  readonly output: Tensor | null
  /** What the graph depends on, per chunk. */
  readonly facts: readonly ChunkFacts[]
}

interface Plan<P> {
  readonly key: string
  readonly graph: Graph
  readonly output: Tensor | null
  /** Of the step that is computed now; inputs read them when they are filled. */
  chunks: readonly P[]
  /** What the last computation took. */
  seconds: number
}

/** What a step computes besides attention. */
export interface Recipe<P> {
  /** Of what else the graph depends on. */
  readonly key: string
  /** Records it; `now` gives the chunks of the step that is being computed. */
  record(step: Step, now: () => readonly P[]): Tensor | null
}

/** A step that takes less than this does not hold up a server that anybody would notice. */
const SHORT_SECONDS = 0.05
/** Tensors to begin with; graphs grow, and the next one has room for some more than the largest so far. */
const ROOM = 2048
const SPARE = 1.25

export class Planner<P extends StepChunk> implements Disposable {
  readonly #backend: Backend
  /** Prompts need far more of it than decoding, and nothing in it outlives a step: so it is given back in between. */
  #scratch: Scratch
  #plan: Plan<P> | null = null
  #isDecoding = false
  #room = ROOM
  /** Spent so far on recording graphs and on filling their inputs. */
  readonly seconds = { record: 0, fill: 0 }

  constructor(backend: Backend) {
    this.#backend = backend
    this.#scratch = new Scratch(backend.bufferType)
  }

  /** Scratch memory held now. */
  get scratchBytes(): number {
    return this.#scratch.bytes
  }

  /** The graph of a step, its inputs filled. */
  plan(chunks: readonly P[], recipe: Recipe<P>): Planned {
    const facts = factsOf(chunks)
    const key = `${stepKey(chunks, facts)} ${recipe.key}`
    if (this.#plan?.key !== key) {
      const isDecoding = chunks.every(({ nTokens }) => nTokens === 1)
      if (isDecoding && !this.#isDecoding) this.trim()
      this.#isDecoding = isDecoding
      this.#forget()
      const start = performance.now()
      this.#plan = this.#record(key, { chunks, facts, recipe })
      this.seconds.record += (performance.now() - start) / 1000
    }
    const plan = this.#plan
    plan.chunks = chunks
    const start = performance.now()
    plan.graph.fillInputs()
    this.seconds.fill += (performance.now() - start) / 1000
    return { graph: plan.graph, output: plan.output, facts }
  }

  /** Computes what was planned last. Rejects with `aborted` if it is interrupted. */
  async compute(): Promise<void> {
    const plan = this.#plan!
    plan.seconds = await this.#backend.compute(plan.graph, plan.seconds < SHORT_SECONDS)
  }

  /** Gives the scratch memory back, until the next step. */
  trim(): void {
    this.#forget()
    this.#scratch[Symbol.dispose]()
    this.#scratch = new Scratch(this.#backend.bufferType)
  }

  #record(key: string, of: { chunks: readonly P[]; facts: readonly ChunkFacts[]; recipe: Recipe<P> }): Plan<P> {
    let plan: Plan<P> | null = null
    const now = () => plan!.chunks
    const { graph, result } = Graph.record(this.#room, (g) => {
      const output = of.recipe.record(
        buildStep(g, of, (chunk) => now()[chunk]!.cache),
        now,
      )
      if (output) g.output(output)
      return output
    })
    // Steps of one sequence take turns with smaller graphs: what was enough for the largest is enough for all.
    this.#room = Math.max(this.#room, Math.ceil(graph.nMade * SPARE))
    try {
      graph.plan(this.#scratch)
    } catch (error) {
      graph[Symbol.dispose]()
      throw error
    }
    plan = { key, graph, output: result, chunks: of.chunks, seconds: Infinity }
    return plan
  }

  #forget(): void {
    this.#plan?.graph[Symbol.dispose]()
    this.#plan = null
  }

  [Symbol.dispose](): void {
    this.#forget()
    this.#scratch[Symbol.dispose]()
  }
}
