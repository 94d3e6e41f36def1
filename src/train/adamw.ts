/**
 * AdamW (arXiv 1711.05101) over the parameters of a run, as one graph of ggml's `opt_step_adamw`.
 *
 * ggml's own training contexts (`ggml_opt_*`) would do this too, but they keep the moments to themselves, so nothing could be
 * resumed, they cannot limit the gradient's norm, and they ask for the learning rate through a call back into JavaScript. The
 * plain operations in two graphs, gradients and step, are less code than binding them, and cost the same.
 */
import type { Backend } from '../ggml/backend.ts'
import { Graph, Scratch } from '../ggml/graph.ts'
import { ggml } from '../ggml/library.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { Parameter, Trained } from './parameter.ts'

export interface AdamWOptions {
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  /** Of matrices; norms and biases do not decay. */
  readonly weightDecay: number
}

export interface AdamWStep {
  /** Steps done before, for the correction of the moments' bias. */
  readonly nDone: number
  readonly rate: number
  /** What gradients are multiplied by first. */
  readonly scale: number
}

export class AdamW implements Disposable {
  readonly #backend: Backend
  readonly #parameters: readonly Parameter[]
  readonly #graph: StepGraph
  readonly #scratch: Scratch
  #step: AdamWStep = { nDone: 0, rate: 0, scale: 1 }

  constructor(backend: Backend, parameters: readonly Parameter[], options: AdamWOptions) {
    this.#backend = backend
    this.#parameters = parameters.filter(({ trained }) => trained !== null)
    this.#graph = new StepGraph(this.#parameters.length)
    this.#scratch = new Scratch(backend.bufferType)
    const values = (weightDecay: number) => this.#graph.input(F32, [7], (data) => data.set(this.#values(options, weightDecay)))
    const [decaying, plain] = [values(options.weightDecay), values(0)]
    const factor = this.#graph.input(F32, [1], (data) => data.fill(this.#step.scale))
    for (const p of this.#parameters) this.#graph.adamw(p, { values: p.decays ? decaying : plain, factor })
    this.#graph.plan(this.#scratch)
  }

  /** Moves the parameters against their gradients, and sets those to 0. Not to be interrupted: half a step is no step. */
  async step(step: AdamWStep): Promise<void> {
    this.#step = step
    this.#graph.fillInputs()
    await this.#backend.compute(this.#graph, false)
    this.clear()
  }

  clear(): void {
    for (const { trained } of this.#parameters) trained!.gradient.data.fill(0)
  }

  /** In the order of ggml's kernel. */
  #values({ beta1, beta2, eps }: AdamWOptions, weightDecay: number): number[] {
    const { nDone, rate } = this.#step
    return [rate, beta1, beta2, eps, weightDecay, 1 / (1 - beta1 ** (nDone + 1)), 1 / (1 - beta2 ** (nDone + 1))]
  }

  [Symbol.dispose](): void {
    this.#graph[Symbol.dispose]()
    this.#scratch[Symbol.dispose]()
  }
}

class StepGraph extends Graph {
  constructor(nParameters: number) {
    super(4 * nParameters + 16)
  }

  adamw({ tensor, trained }: Parameter, { values, factor }: { readonly values: Tensor; readonly factor: Tensor }): void {
    const { gradient, m, v } = trained as Trained
    const scaled = this.mul(gradient.tensor, factor)
    const at = ggml().ggml_opt_step_adamw(this.context, tensor.ptr, scaled.ptr, m.tensor.ptr, v.tensor.ptr, values.ptr)
    this.expand({ ...tensor, ptr: at })
  }
}

/** The length of all gradients as one vector. In JavaScript: some milliseconds per million, and sums in float64. */
export function gradientNorm(parameters: readonly Parameter[]): number {
  let square = 0
  for (const { trained } of parameters) {
    if (trained === null) continue
    const { data } = trained.gradient
    for (let i = 0; i < data.length; i++) square += data[i]! * data[i]!
  }
  return Math.sqrt(square)
}
