/** One attention layer with random weights, computed by a method on one or more sequences, and by plain float64 loops. */
import type { AttentionMethod, Step } from '../../src/attention/method.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32, I32 } from '../../src/ggml/types.ts'
import { SequenceCache } from '../../src/kv/cache.ts'
import { roundUp, TILE } from '../../src/kv/layout.ts'
import { ropeParams } from '../../src/nn/rope.ts'
import { normals } from './random.ts'

export interface LayerShape {
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
}

export interface LayerPart {
  readonly cache: SequenceCache
  /** f32[nEmbd, n] */
  readonly x: Float32Array
}

export const N_EMBD = 48
const ROPE = { mode: 0, freqBase: 10_000, nCtxTrain: 4096, scaling: { type: 'none' } } as const

export class TestLayer implements Disposable {
  readonly shape: LayerShape
  readonly #method: AttentionMethod
  readonly #type: number
  readonly #backend: Backend = new Backend(2)
  readonly #scratch: Scratch = new Scratch(this.#backend.bufferType)
  readonly weights: Record<'q' | 'k' | 'v' | 'output', Float32Array>

  constructor(method: AttentionMethod, shape: LayerShape, type: number) {
    this.shape = shape
    this.#method = method
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
    return new SequenceCache(this.#method.layout(this.#modelShape, { k: this.#type, v: this.#type }), nCtx)
  }

  get #modelShape() {
    return { arch: 'test', nLayer: 1, nEmbd: N_EMBD, nFf: 1, nVocab: 1, nCtxTrain: 4096, ...this.shape }
  }

  /** f32[nEmbd, n] per part; the caches take the new rows. */
  async attend(parts: readonly LayerPart[]): Promise<Float32Array[]> {
    using g = new Graph(1024)
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
      shape: this.#modelShape,
      nTokens,
      positions,
      parts: parts.map(({ cache }, i) => {
        const nTokens = counts[i]!
        return { cache, first: firsts[i]!, nTokens, nRead: roundUp(cache.nTokens + nTokens, TILE) }
      }),
    }
    const y = g.output(this.#method.start(step)(layer, x))
    g.plan(this.#scratch)
    g.fillInputs()
    await this.#backend.compute(g, true)
    const all = g.read(y, new Float32Array(N_EMBD * nTokens))
    parts.forEach(({ cache }, i) => cache.append(counts[i]!))
    return counts.map((n, i) => all.slice(firsts[i]! * N_EMBD, (firsts[i]! + n) * N_EMBD))
  }

  /** Dense causal attention over all of `x` f32[nEmbd, T], in float64, written as the formula reads. */
  oracle(x: Float32Array): Float64Array {
    const { nHead, nHeadKv, headDim: d } = this.shape
    const T = x.length / N_EMBD
    const project = (w: Float32Array, t: number, row: number, nIn: number, input: ArrayLike<number>) => {
      let sum = 0
      for (let i = 0; i < nIn; i++) sum += w[row * nIn + i]! * input[t * nIn + i]!
      return sum
    }
    const heads = (w: Float32Array, n: number, rotated: boolean) =>
      Array.from({ length: T }, (_, t) =>
        Array.from({ length: n }, (_, h) => {
          const head = Array.from({ length: d }, (_, i) => project(w, t, h * d + i, N_EMBD, x))
          return rotated ? rotate(head, t) : head
        }),
      )
    const q = heads(this.weights.q, nHead, true)
    const k = heads(this.weights.k, nHeadKv, true)
    const v = heads(this.weights.v, nHeadKv, false)
    const attended = new Float64Array(T * nHead * d)
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < nHead; h++) {
        const kv = Math.floor(h / (nHead / nHeadKv))
        const scores = Array.from({ length: t + 1 }, (_, j) => dot(q[t]![h]!, k[j]![kv]!) / Math.sqrt(d))
        const most = Math.max(...scores)
        const weights = scores.map((s) => Math.exp(s - most))
        const total = weights.reduce((a, b) => a + b, 0)
        for (let i = 0; i < d; i++) {
          attended[(t * nHead + h) * d + i] = weights.reduce((sum, w, j) => sum + (w / total) * v[j]![kv]![i]!, 0)
        }
      }
    }
    return Float64Array.from({ length: T * N_EMBD }, (_, i) =>
      project(this.weights.output, Math.floor(i / N_EMBD), i % N_EMBD, nHead * d, attended),
    )
  }

  [Symbol.dispose](): void {
    this.#scratch[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0)
}

/** Neighbouring pairs turn by position · freqBase^(-2i/d). */
function rotate(head: readonly number[], position: number): number[] {
  const turned = [...head]
  for (let i = 0; i < head.length; i += 2) {
    const angle = position * ROPE.freqBase ** (-i / head.length)
    turned[i] = head[i]! * Math.cos(angle) - head[i + 1]! * Math.sin(angle)
    turned[i + 1] = head[i]! * Math.sin(angle) + head[i + 1]! * Math.cos(angle)
  }
  return turned
}
