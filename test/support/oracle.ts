/** Attention as the formulas read: plain loops in float64, one query at a time. What methods are compared with. */
import type { LayerShape } from '../../src/core/shape.ts'
import { type LayerWeights, modelOf, N_EMBD, ROPE_FREQ_BASE, type TestShape } from './layer-shape.ts'

export class Oracle {
  readonly shape: TestShape
  /** The layer itself; `shape` is what layers have in common. */
  readonly #layer: LayerShape
  readonly nTokens: number
  /** [nEmbd, T] */
  readonly x: Float32Array | Float64Array
  /** Unrotated, by token and head. */
  readonly q: readonly (readonly Float64Array[])[]
  readonly k: readonly (readonly Float64Array[])[]
  readonly v: readonly (readonly Float64Array[])[]
  readonly #weights: LayerWeights

  /** `x` [nEmbd, T], what goes into layer `il`. */
  constructor(shape: TestShape, weights: LayerWeights, x: Float32Array | Float64Array, il = 0) {
    this.shape = shape
    this.#layer = modelOf(shape, il + 1).layers[il]!
    this.x = x
    this.nTokens = x.length / N_EMBD
    this.#weights = weights
    const { nHead, nHeadKv, dK, dV } = this.#layer
    const heads = (w: Float32Array, n: number, d: number) =>
      Array.from({ length: this.nTokens }, (_, t) => {
        const y = times(w, x.subarray(t * N_EMBD, (t + 1) * N_EMBD))
        return Array.from({ length: n }, (__, h) => y.subarray(h * d, (h + 1) * d))
      })
    this.q = heads(weights.q, nHead, dK)
    this.k = heads(weights.k, nHeadKv, dK)
    this.v = heads(weights.v, nHeadKv, dV)
  }

  /** Query heads of a KV head. */
  group(kv: number): number[] {
    const g = this.shape.nHead / this.shape.nHeadKv
    return Array.from({ length: g }, (_, i) => kv * g + i)
  }

  /** Neighbouring pairs turn by place · freqBase^(-2i/d). */
  rotate(head: Float64Array, place: number): Float64Array {
    const { cos, sin } = anglesOf(head.length, place)
    const turned = head.slice()
    for (let i = 0; i < head.length; i += 2) {
      const [c, s] = [cos[i / 2]!, sin[i / 2]!]
      turned[i] = head[i]! * c - head[i + 1]! * s
      turned[i + 1] = head[i]! * s + head[i + 1]! * c
    }
    return turned
  }

  /** Positions that the query at `position` sees, or would if nothing were dropped. */
  sees(position: number): readonly [first: number, end: number] {
    const { visible } = this.#layer
    if (visible === 'strict') return [0, position]
    return [visible === 'causal' ? 0 : Math.max(0, position + 1 - visible.window), position + 1]
  }

  /** softmax of scores over keys; a query head with a sink gives a part of it to none. */
  probabilities(q: Float64Array, keys: readonly Float64Array[], head?: number): Float64Array {
    const { scale, softcap } = this.#layer
    const scores = Float64Array.from(keys, (key) => {
      const score = dot(q, key) * scale
      return softcap === null ? score : softcap * Math.tanh(score / softcap)
    })
    const { sinks } = this.#weights
    if (sinks && head === undefined) throw new Error('whose sink?')
    const sink = sinks ? sinks[head!]! : -Infinity
    const most = scores.reduce((a, b) => Math.max(a, b), sink)
    const weights = scores.map((s) => Math.exp(s - most))
    const total = weights.reduce((a, b) => a + b, Math.exp(sink - most))
    return weights.map((w) => w / total)
  }

  /** Σ p · v. */
  weigh(p: Float64Array, values: readonly Float64Array[]): Float64Array {
    const o = new Float64Array(this.#layer.dV)
    for (const [j, value] of values.entries()) for (let i = 0; i < o.length; i++) o[i]! += p[j]! * value[i]!
    return o
  }

  /** `attend(h)` → f64[dV] for every query head of one token; the layer's output f64[nEmbd]. */
  token(attend: (h: number) => Float64Array): Float64Array {
    const { nHead, dV } = this.#layer
    const attended = new Float64Array(nHead * dV)
    for (let h = 0; h < nHead; h++) attended.set(attend(h), h * dV)
    return times(this.#weights.output, attended)
  }

  /** `attend(t, h)` → f64[dV] for every token and query head; the layer's output f64[nEmbd, T]. */
  layer(attend: (t: number, h: number) => Float64Array): Float64Array {
    const y = new Float64Array(this.nTokens * N_EMBD)
    for (let t = 0; t < this.nTokens; t++)
      y.set(
        this.token((h) => attend(t, h)),
        t * N_EMBD,
      )
    return y
  }

  /** Attention over all keys that a query sees, rotated to their positions. */
  dense(): Float64Array {
    const { nHead, nHeadKv } = this.#layer
    const byHead = Array.from({ length: nHeadKv }, (_, kv) => ({
      k: this.k.map((heads, t) => this.rotate(heads[kv]!, t)),
      v: this.v.map((heads) => heads[kv]!),
    }))
    return this.layer((t, h) => {
      const { k, v } = byHead[Math.floor(h / (nHead / nHeadKv))]!
      const [first, end] = this.sees(t)
      const p = this.probabilities(this.rotate(this.q[t]![h]!, t), k.slice(first, end), h)
      return this.weigh(p, v.slice(first, end))
    })
  }
}

interface Angles {
  readonly cos: Float64Array
  readonly sin: Float64Array
}

const known = new Map<string, Angles>()

/** Of the pairs of a head of `d` elements at a place. */
function anglesOf(d: number, place: number): Angles {
  const key = `${d}:${place}`
  const found = known.get(key)
  if (found) return found
  const angles = Float64Array.from({ length: d / 2 }, (_, i) => place * ROPE_FREQ_BASE ** ((-2 * i) / d))
  const made = { cos: angles.map(Math.cos), sin: angles.map(Math.sin) }
  known.set(key, made)
  return made
}

/** W x for W f32[nIn, nOut]. */
function times(w: Float32Array, x: Float32Array | Float64Array): Float64Array {
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
