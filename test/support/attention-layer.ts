/** One attention layer with random weights, computed by a method on one or more sequences, and by plain float64 loops. */
import { type Attention, startStep } from '../../src/attention/attention.ts'
import { METHODS } from '../../src/attention/index.ts'
import type { AnyMethod, Step } from '../../src/attention/method.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32, I32 } from '../../src/ggml/types.ts'
import { SequenceCache } from '../../src/kv/cache.ts'
import { ropeParams } from '../../src/nn/rope.ts'
import { type LayerShape, N_EMBD, ROPE_FREQ_BASE } from './layer-shape.ts'
import { Oracle } from './oracle.ts'
import { normals } from './random.ts'

export interface LayerPart {
  readonly cache: SequenceCache
  /** f32[nEmbd, n] */
  readonly x: Float32Array
}

const ROPE = { mode: 0, freqBase: ROPE_FREQ_BASE, nCtxTrain: 4096, scaling: { type: 'none' } } as const

export class TestLayer implements Disposable {
  readonly shape: LayerShape
  readonly attention: Attention
  readonly #type: number
  readonly #backend: Backend = new Backend(1)
  readonly #scratch: Scratch = new Scratch(this.#backend.bufferType)
  readonly weights: Record<'q' | 'k' | 'v' | 'output', Float32Array>

  constructor(setting: AttentionSetting, shape: LayerShape, type: number, methods: readonly AnyMethod[] = METHODS) {
    this.shape = shape
    this.attention = attentionFor(setting, this.modelShape, methods)
    this.#type = type
    const { nHead, nHeadKv, headDim } = shape
    const matrix = (n: number, m: number, seed: number) => normals(n * m, seed).map((w) => w / Math.sqrt(n))
    this.weights = {
      q: matrix(N_EMBD, nHead * headDim, 1),
      k: matrix(N_EMBD, nHeadKv * headDim, 2),
      v: matrix(N_EMBD, nHeadKv * headDim, 3),
      output: matrix(nHead * headDim, N_EMBD, 4),
    }
  }

  newCache(nCtx: number): SequenceCache {
    return new SequenceCache(this.attention.layout(this.modelShape, { k: this.#type, v: this.#type }), this.attention.nRows(nCtx))
  }

  get modelShape() {
    return { arch: 'test', nLayer: 1, nEmbd: N_EMBD, nFf: 1, nVocab: 1, nCtxTrain: 4096, ...this.shape }
  }

  /** f32[nEmbd, n] per part; the caches take the new rows. */
  async attend(parts: readonly LayerPart[], endsPrompt = true): Promise<Float32Array[]> {
    using g = new Graph(1024 + parts.reduce((sum, { x }) => sum + this.attention.nNodes(x.length / N_EMBD), 0))
    const counts = parts.map(({ x }) => x.length / N_EMBD)
    const firsts = counts.map((_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0))
    const nTokens = firsts.at(-1)! + counts.at(-1)!
    const matrix = (w: Float32Array, nIn: number) => ({
      weight: g.input(F32, [nIn, w.length / nIn], (d) => d.set(w)),
      bias: null,
    })
    const x = g.input(F32, [N_EMBD, nTokens], (d) => parts.forEach((part, i) => d.set(part.x, firsts[i]! * N_EMBD)))
    const positions = g.input(I32, [nTokens], (d) => {
      for (const [i, { cache }] of parts.entries()) for (let j = 0; j < counts[i]!; j++) d[firsts[i]! + j] = cache.nTokens + j
    })
    const { nHead, headDim } = this.shape
    const layer = {
      il: 0,
      q: matrix(this.weights.q, N_EMBD),
      k: matrix(this.weights.k, N_EMBD),
      v: matrix(this.weights.v, N_EMBD),
      output: matrix(this.weights.output, nHead * headDim),
      rope: ropeParams({ ...ROPE, nDims: headDim }),
      ropeFactors: null,
    }
    const step: Step = {
      g,
      shape: this.modelShape,
      nTokens,
      positions,
      parts: parts.map(({ cache }, i) => {
        const nTokens = counts[i]!
        return { cache, first: firsts[i]!, nTokens, nRead: this.attention.nRead(cache, nTokens) }
      }),
    }
    const attend = startStep(
      step,
      parts.map(() => this.attention),
    )
    const y = g.output(attend(layer, x)!)
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

  /** The same by plain loops, for `x` f32[nEmbd, T]. */
  oracle(x: Float32Array): Oracle {
    return new Oracle(this.shape, this.weights, x)
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}
