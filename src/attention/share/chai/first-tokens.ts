/** The rotated queries and keys of a request's first tokens, by which heads are compared; given back once they were. */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32, I32 } from '../ggml/types.ts'
import type { StoreLayout } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import { type Gram, gramOf } from './head-clusters.ts'
import type { AttentionLayer, Projected, Step, StepPart } from './method.ts'

/** Tokens that are read before heads are compared (CHAI, section 3.3). */
export const N_FIRST = 5

export class FirstTokens {
  readonly #step: Step
  readonly #part: StepPart
  readonly #rows: Tensor

  constructor(step: Step, part: StepPart) {
    this.#step = step
    this.#part = part
    const { cache, nTokens } = part
    this.#rows = step.g.input(I32, [nTokens], (data) => data.forEach((_, i) => (data[i] = cache.nTokens + i)))
  }

  /** f32[d, N_FIRST, H + G]: queries, then keys. */
  static layout({ headDim: width, nHead, nHeadKv }: ModelShape): StoreLayout {
    return { width, nHead: nHead + nHeadKv, type: F32, order: 'rows', fixed: N_FIRST }
  }

  /** Remembers those of a part in a layer, which has a store `first`. */
  keep({ il }: AttentionLayer, { rotated }: Projected): void {
    const { g, shape } = this.#step
    const { tensor } = this.#part.cache.layers[il]!.stores['first']!
    const write = (x: Tensor, head: number) => {
      const [d, n, nHead] = [tensor.ne[0], tensor.ne[1], x.ne[1]]
      const into = g.view(tensor, [d, n, nHead, 1], [tensor.nb[1], tensor.nb[2], tensor.nb[3]], head * tensor.nb[2])
      g.expand(g.setRows(into, g.permute(x, 0, 2, 1, 3), this.#rows))
    }
    write(rotated.q, 0)
    write(rotated.k, shape.nHead)
  }

  /**
   * How alike KV heads attend: their features are softmax(q·kᵀ/√d) of the first tokens, [N_FIRST, N_FIRST] for each of their query
   * heads.
   */
  static compare(store: Store, { headDim: d, nHead: H, nHeadKv: G }: ModelShape, isCausal: boolean): Gram {
    const data = store.data() as Float32Array
    const row = (head: number, t: number) => data.subarray((head * N_FIRST + t) * d, (head * N_FIRST + t + 1) * d)
    const feature = (kv: number) => {
      const all = new Float64Array((H / G) * N_FIRST * N_FIRST)
      for (let i = 0; i < (H / G) * N_FIRST; i++) {
        const t = i % N_FIRST
        const q = row((kv * H) / G + Math.floor(i / N_FIRST), t)
        const nSeen = isCausal ? t + 1 : N_FIRST
        const scores = Array.from({ length: nSeen }, (_, s) => dot(q, row(H + kv, s)) / Math.sqrt(d))
        const most = Math.max(...scores)
        const weights = scores.map((score) => Math.exp(score - most))
        const sum = weights.reduce((a, b) => a + b, 0)
        for (const [s, weight] of weights.entries()) all[i * N_FIRST + s] = weight / sum
      }
      return all
    }
    return gramOf(Array.from({ length: G }, (_, kv) => feature(kv)))
  }
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
