/** The rotated queries and keys of a request's first tokens, by which heads are compared; given back once they were. */
import type { LayerShape } from '../../../core/shape.ts'
import type { Tensor } from '../../../ggml/tensor.ts'
import { F32, I32 } from '../../../ggml/types.ts'
import type { StoreLayout } from '../../../kv/layout.ts'
import type { Store } from '../../../kv/store.ts'
import type { Chunk } from '../../chunk.ts'
import type { AttentionLayer, Projected } from '../../method.ts'
import { type Gram, gramOf } from './head-clusters.ts'

/** Tokens that are read before heads are compared (CHAI, section 3.3). */
export const N_FIRST = 5

export class FirstTokens {
  readonly #chunk: Chunk
  readonly #rows: Tensor

  constructor(chunk: Chunk) {
    this.#chunk = chunk
    this.#rows = chunk.input(I32, [chunk.nTokens], (data, { nTokens }) => data.forEach((_, i) => (data[i] = nTokens + i)))
  }

  /** f32[dK, N_FIRST, H + G]: queries, then keys. */
  static layout({ dK, nHead, nHeadKv }: LayerShape): StoreLayout {
    return { width: dK, nHead: nHead + nHeadKv, type: F32, order: 'rows', fixed: N_FIRST }
  }

  /** Remembers those of a chunk in a layer, which has a store `first`. */
  keep({ il, nHead }: AttentionLayer, { rotated }: Projected): void {
    const { g } = this.#chunk
    const { tensor } = this.#chunk.layer(il).stores['first']!
    const write = (x: Tensor, head: number) => {
      const [d, n] = tensor.ne
      const into = g.view(tensor, [d, n, x.ne[1], 1], [tensor.nb[1], tensor.nb[2], tensor.nb[3]], head * tensor.nb[2])
      g.expand(g.setRows(into, g.permute(x, 0, 2, 1, 3), this.#rows))
    }
    write(rotated.q, 0)
    write(rotated.k, nHead)
  }

  /**
   * How alike KV heads attend: their features are the softmax of the scores of the first tokens, [N_FIRST, N_FIRST] for each of
   * their query heads. What sinks take of it is left out.
   */
  static compare(store: Store, { dK, nHead: H, nHeadKv: G, scale, softcap }: LayerShape, isCausal: boolean): Gram {
    const data = store.data() as Float32Array
    const row = (head: number, t: number) => data.subarray((head * N_FIRST + t) * dK, (head * N_FIRST + t + 1) * dK)
    const capped = (score: number) => (softcap === null ? score : softcap * Math.tanh(score / softcap))
    const feature = (kv: number) => {
      const all = new Float64Array((H / G) * N_FIRST * N_FIRST)
      for (let i = 0; i < (H / G) * N_FIRST; i++) {
        const t = i % N_FIRST
        const q = row((kv * H) / G + Math.floor(i / N_FIRST), t)
        const nSeen = isCausal ? t + 1 : N_FIRST
        const scores = Array.from({ length: nSeen }, (_, s) => capped(dot(q, row(H + kv, s)) * scale))
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
