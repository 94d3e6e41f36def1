/** One attention layer with random weights, computed by a method on one or more sequences, and by plain float64 loops. */
import type { Attention, ChunkFacts } from '../../src/attention/attention.ts'
import type { AnyMethod, AttentionLayer } from '../../src/attention/method.ts'
import { METHODS } from '../../src/attention/registry.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import type { Step, StepChunk } from '../../src/attention/step.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import type { ModelShape } from '../../src/core/shape.ts'
import { Planner } from '../../src/engine/plan.ts'
import { Backend } from '../../src/ggml/backend.ts'
import type { Graph } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { F32, I32 } from '../../src/ggml/types.ts'
import { KvCache } from '../../src/kv/cache.ts'
import { linear } from '../../src/nn/linear.ts'
import { ropeParams } from '../../src/nn/rope.ts'
import { type TestShape, layerWeights, type LayerWeights, modelOf, N_EMBD, ROPE_FREQ_BASE } from './layer-shape.ts'
import { Oracle } from './oracle.ts'

export interface LayerPart {
  readonly cache: KvCache
  /** f32[nEmbd, n] */
  readonly x: Float32Array
}

type Part = LayerPart & StepChunk

const ROPE = { mode: 0, freqBase: ROPE_FREQ_BASE, nCtxTrain: 4096, scaling: { type: 'none' } } as const

export class TestLayer implements Disposable {
  readonly shape: TestShape
  readonly attention: Attention
  readonly weights: LayerWeights
  readonly #type: number
  readonly #backend: Backend = new Backend(1)
  readonly #planner: Planner<Part> = new Planner<Part>(this.#backend)

  constructor(setting: AttentionSetting, shape: TestShape, type: number, methods: readonly AnyMethod[] = METHODS) {
    this.shape = shape
    this.attention = attentionFor(setting, this.modelShape, methods)
    this.#type = type
    this.weights = layerWeights(shape, 0)
  }

  newCache(nCtx: number): KvCache {
    return new KvCache(this.attention.layout({ k: this.#type, v: this.#type }), this.attention.capacity(nCtx))
  }

  protected get nLayer(): number {
    return 1
  }

  get modelShape(): ModelShape {
    return modelOf(this.shape, this.nLayer)
  }

  /** Records the next step anew, whatever was recorded before. */
  forgetPlan(): void {
    this.#planner.trim()
  }

  /** f32[nEmbd, n] per part; the caches take the new rows. */
  async attend(parts: readonly LayerPart[], endsPrompt = true): Promise<Float32Array[]> {
    const { all, y, facts } = await this.#compute(parts)
    let at = 0
    return all.map(({ cache, x, nTokens }, i) => {
      cache.append(nTokens)
      this.attention.commit(cache, facts[i]!, endsPrompt)
      at += x.length
      return y.slice(at - x.length, at)
    })
  }

  /** Computes a step whose results are lost, as if it had failed in the end. */
  async computeOnly(parts: readonly LayerPart[]): Promise<void> {
    await this.#compute(parts)
  }

  async #compute(parts: readonly LayerPart[]): Promise<{ all: Part[]; y: Float32Array; facts: readonly ChunkFacts[] }> {
    const all = parts.map((part) => ({ ...part, attention: this.attention, nTokens: part.x.length / N_EMBD }))
    const { graph, output, facts } = this.#planner.plan(all, {
      key: '',
      record: (step, now) => {
        const x = step.g.input(F32, [N_EMBD, step.nTokens], (data) => {
          let at = 0
          for (const part of now()) {
            data.set(part.x, at)
            at += part.x.length
          }
        })
        return this.forward(step, x)
      },
    })
    await this.#planner.compute()
    return { all, y: graph.read(output!, new Float32Array(output!.ne[0] * output!.ne[1])), facts }
  }

  /** f32[nEmbd, n] → the same. */
  protected forward({ g, attend }: Step, x: Tensor): Tensor {
    return attend(this.layer(g, 0, this.weights), x, null)!
  }

  protected layer(g: Graph, il: number, weights: LayerWeights): AttentionLayer {
    const shape = this.modelShape.layers[il]!
    const { nHead, dK, dV } = shape
    const matrix = (w: Float32Array, nIn: number) => ({
      weight: g.input(F32, [nIn, w.length / nIn], (d) => d.set(w)),
      bias: null,
    })
    const rope = ropeParams({ ...ROPE, nDims: dK })
    const projections = { q: matrix(weights.q, N_EMBD), k: matrix(weights.k, N_EMBD), v: matrix(weights.v, N_EMBD) }
    return {
      ...shape,
      sinks: weights.sinks ? g.input(F32, [nHead], (d) => d.set(weights.sinks!)) : null,
      project(graph, x, which, heads) {
        const d = which === 'v' ? dV : dK
        const y = linear(graph, projections[which], x)
        const all = graph.reshape(y, d, y.ne[0] / d, y.ne[1])
        if (!heads) return all
        const index = graph.input(I32, [heads.length, x.ne[1]], (data) =>
          data.forEach((_, i) => (data[i] = heads[i % heads.length]!)),
        )
        return graph.getRows(all, index)
      },
      rotate: (graph, x, positions) => graph.ropeExt(x, positions, null, rope),
      output: matrix(weights.output, nHead * dV),
    }
  }

  /** The same by plain loops, for `x` f32[nEmbd, T]. */
  oracle(x: Float32Array): Oracle {
    return new Oracle(this.shape, this.weights, x)
  }

  [Symbol.dispose](): void {
    this.#planner[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}
