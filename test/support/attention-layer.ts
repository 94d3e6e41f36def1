/** One attention layer with random weights, computed by a method on one or more sequences, and by plain float64 loops. */
import { type Attend, type Attention, cyclesOf, startStep } from '../../src/attention/attention.ts'
import { METHODS } from '../../src/attention/index.ts'
import type { AnyMethod, AttentionLayer, Step } from '../../src/attention/method.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import type { ModelShape } from '../../src/core/shape.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { F32, I32 } from '../../src/ggml/types.ts'
import { SequenceCache } from '../../src/kv/cache.ts'
import { ropeParams } from '../../src/nn/rope.ts'
import { type LayerShape, layerWeights, type LayerWeights, N_EMBD, ROPE_FREQ_BASE } from './layer-shape.ts'
import { Oracle } from './oracle.ts'

export interface LayerPart {
  readonly cache: SequenceCache
  /** f32[nEmbd, n] */
  readonly x: Float32Array
}

const ROPE = { mode: 0, freqBase: ROPE_FREQ_BASE, nCtxTrain: 4096, scaling: { type: 'none' } } as const

export class TestLayer implements Disposable {
  readonly shape: LayerShape
  readonly attention: Attention
  readonly weights: LayerWeights
  readonly #type: number
  readonly #backend: Backend = new Backend(1)
  readonly #scratch: Scratch = new Scratch(this.#backend.bufferType)

  constructor(setting: AttentionSetting, shape: LayerShape, type: number, methods: readonly AnyMethod[] = METHODS) {
    this.shape = shape
    this.attention = attentionFor(setting, this.modelShape, methods)
    this.#type = type
    this.weights = layerWeights(shape, 0)
  }

  newCache(nCtx: number): SequenceCache {
    return new SequenceCache(this.attention.layout(this.modelShape, { k: this.#type, v: this.#type }), this.attention.nRows(nCtx))
  }

  get modelShape(): ModelShape {
    return { arch: 'test', nLayer: 1, nEmbd: N_EMBD, nFf: 1, nVocab: 1, nCtxTrain: 4096, ...this.shape }
  }

  /** f32[nEmbd, n] per part; the caches take the new rows. */
  async attend(parts: readonly LayerPart[], endsPrompt = true): Promise<Float32Array[]> {
    const nNodes = parts.reduce((sum, { x }) => sum + this.attention.nNodes(x.length / N_EMBD), 1024)
    using g = new Graph(this.nRuns * nNodes)
    const counts = parts.map(({ x }) => x.length / N_EMBD)
    const firsts = counts.map((_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0))
    const nTokens = firsts.at(-1)! + counts.at(-1)!
    const x = g.input(F32, [N_EMBD, nTokens], (d) => parts.forEach((part, i) => d.set(part.x, firsts[i]! * N_EMBD)))
    const positions = g.input(I32, [nTokens], (d) => {
      for (const [i, { cache }] of parts.entries()) for (let j = 0; j < counts[i]!; j++) d[firsts[i]! + j] = cache.nTokens + j
    })
    const step: Step = {
      g,
      shape: this.modelShape,
      nTokens,
      positions,
      cycles: cyclesOf(counts.map((nTokens) => ({ attention: this.attention, nTokens }))),
      parts: parts.map(({ cache }, i) => {
        const nTokens = counts[i]!
        return { cache, first: firsts[i]!, nTokens, nRead: this.attention.nRead(cache, nTokens) }
      }),
    }
    const attend = startStep(
      step,
      parts.map(() => this.attention),
    )
    const y = g.output(this.forward(step, attend, x))
    g.plan(this.#scratch)
    g.fillInputs()
    await this.#backend.compute(g, true)
    const all = g.read(y, new Float32Array(N_EMBD * nTokens))
    parts.forEach(({ cache }, i) => {
      cache.append(counts[i]!)
      this.attention.settle(cache, endsPrompt)
    })
    return counts.map((n, i) => all.slice(firsts[i]! * N_EMBD, (firsts[i]! + n) * N_EMBD))
  }

  /** Layers that a step runs at most. */
  protected get nRuns(): number {
    return 1
  }

  /** f32[nEmbd, n] → the same. */
  protected forward({ g }: Step, attend: Attend, x: Tensor): Tensor {
    return attend(this.layer(g, 0, this.weights), x)!
  }

  protected layer(g: Graph, il: number, { q, k, v, output }: LayerWeights): AttentionLayer {
    const { nHead, headDim } = this.shape
    const matrix = (w: Float32Array, nIn: number) => ({
      weight: g.input(F32, [nIn, w.length / nIn], (d) => d.set(w)),
      bias: null,
    })
    return {
      il,
      q: matrix(q, N_EMBD),
      k: matrix(k, N_EMBD),
      v: matrix(v, N_EMBD),
      output: matrix(output, nHead * headDim),
      rope: ropeParams({ ...ROPE, nDims: headDim }),
      ropeFactors: null,
    }
  }

  /** The same by plain loops, for `x` f32[nEmbd, T]. */
  oracle(x: Float32Array): Oracle {
    return new Oracle(this.shape, this.weights, x)
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}
