/** Attention as the formulas read: plain loops in float64, one query at a time. What methods are compared with. */
import { type TestShape, type LayerWeights, N_EMBD, ROPE_FREQ_BASE } from './layer-shape.ts'

export class Oracle {
  readonly shape: TestShape
  readonly nTokens: number
  /** [nEmbd, T] */
  readonly x: Float32Array | Float64Array
  /** Unrotated, by token and head. */
  readonly q: readonly (readonly Float64Array[])[]
  readonly k: readonly (readonly Float64Array[])[]
  readonly v: readonly (readonly Float64Array[])[]
  readonly #output: Float32Array

  /** `x` [nEmbd, T] */
  constructor(shape: TestShape, weights: LayerWeights, x: Float32Array | Float64Array) {
    this.shape = shape
    this.x = x
    this.nTokens = x.length / N_EMBD
    this.#output = weights.output
    const heads = (w: Float32Array, n: number) =>
      Array.from({ length: this.nTokens }, (_, t) => {
        const y = times(w, x.subarray(t * N_EMBD, (t + 1) * N_EMBD))
        return Array.from({ length: n }, (_, h) => y.slice(h * shape.headDim, (h + 1) * shape.headDim))
      })
    this.q = heads(weights.q, shape.nHead)
    this.k = heads(weights.k, shape.nHeadKv)
    this.v = heads(weights.v, shape.nHeadKv)
  }

  /** Query heads of a KV head. */
  group(kv: number): number[] {
    const g = this.shape.nHead / this.shape.nHeadKv
    return Array.from({ length: g }, (_, i) => kv * g + i)
  }

  /** Neighbouring pairs turn by place · freqBase^(-2i/d). */
  rotate(head: Float64Array, place: number): Float64Array {
    const turned = head.slice()
    for (let i = 0; i < head.length; i += 2) {
      const angle = place * ROPE_FREQ_BASE ** (-i / head.length)
      turned[i] = head[i]! * Math.cos(angle) - head[i + 1]! * Math.sin(angle)
      turned[i + 1] = head[i]! * Math.sin(angle) + head[i + 1]! * Math.cos(angle)
    }
    return turned
  }

  /** softmax(q · k / √d) over keys. */
  probabilities(q: Float64Array, keys: readonly Float64Array[]): Float64Array {
    const scores = Float64Array.from(keys, (key) => dot(q, key) / Math.sqrt(q.length))
    const most = scores.reduce((a, b) => Math.max(a, b), -Infinity)
    const weights = scores.map((s) => Math.exp(s - most))
    const total = weights.reduce((a, b) => a + b, 0)
    return weights.map((w) => w / total)
  }

  /** Σ p · v. */
  weigh(p: Float64Array, values: readonly Float64Array[]): Float64Array {
    const o = new Float64Array(this.shape.headDim)
    for (const [j, value] of values.entries()) for (let i = 0; i < o.length; i++) o[i]! += p[j]! * value[i]!
    return o
  }

  /** `attend(t, h)` → f64[d] for every token and query head; the layer's output f64[nEmbd, T]. */
  layer(attend: (t: number, h: number) => Float64Array): Float64Array {
    const y = new Float64Array(this.nTokens * N_EMBD)
    for (let t = 0; t < this.nTokens; t++) {
      const attended = Float64Array.from(Array.from({ length: this.shape.nHead }, (_, h) => [...attend(t, h)]).flat())
      y.set(times(this.#output, attended), t * N_EMBD)
    }
    return y
  }

  /** Causal attention over all keys, rotated to their positions. */
  dense(): Float64Array {
    const k = this.k.map((heads, t) => heads.map((head) => this.rotate(head, t)))
    return this.layer((t, h) => {
      const kv = Math.floor(h / (this.shape.nHead / this.shape.nHeadKv))
      const p = this.probabilities(
        this.rotate(this.q[t]![h]!, t),
        k.slice(0, t + 1).map((heads) => heads[kv]!),
      )
      return this.weigh(
        p,
        this.v.slice(0, t + 1).map((heads) => heads[kv]!),
      )
    })
  }
}

/** W x for W f32[nIn, nOut]. */
function times(w: Float32Array, x: ArrayLike<number>): Float64Array {
  const y = new Float64Array(w.length / x.length)
  for (let row = 0; row < y.length; row++) {
    let sum = 0
    for (let i = 0; i < x.length; i++) sum += w[row * x.length + i]! * x[i]!
    y[row] = sum
  }
  return y
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
