/** The first keys of a sequence, kept before rotation so that they can stand anywhere: f32[dK, sink, G] in each layer. */
import type { Tensor } from '../../ggml/tensor.ts'
import { F32, I32 } from '../../ggml/types.ts'
import { type KvCache, storeOf } from '../../kv/cache.ts'
import type { StoreLayout } from '../../kv/layout.ts'
import type { LayerShape } from '../../core/shape.ts'
import type { Chunk } from '../chunk.ts'
import { groupHeads } from '../kernels/heads.ts'
import type { AttentionLayer, WrittenLayer } from '../method.ts'

export function sinksLayout({ dK: width, nHeadKv: nHead }: LayerShape, sink: number): StoreLayout {
  return { width, nHead, type: F32, order: 'rows', fixed: sink }
}

export class Sinks {
  readonly #chunk: Chunk
  readonly #sink: number

  /** `sink` ≥ 1 of them. */
  constructor(chunk: Chunk, sink: number) {
    this.#chunk = chunk
    this.#sink = sink
  }

  /** Remembers the first `n` of the chunk's keys f32[dK, G, n]. */
  keep({ il }: WrittenLayer, k: Tensor, n: number): void {
    const { g } = this.#chunk
    const some = g.view(k, [k.ne[0], k.ne[1], n, 1], [k.nb[1], k.nb[2], k.nb[3]])
    g.expand(
      g.setRows(
        this.#stored(il),
        g.cont(g.permute(some, 0, 2, 1, 3)),
        this.#places('new', n, ({ nTokens }) => nTokens),
      ),
    )
  }

  /**
   * Rotates them to the places from `first` on and puts them into their rows of the cache, which are the first. From then on
   * these rows are right for one step only: whoever reads them places or scores them anew.
   */
  place(layer: AttentionLayer, first: (cache: KvCache) => number): void {
    const { g } = this.#chunk
    const put = () => {
      const placed = this.#rotated(layer, this.#places('placed', this.#sink, first))
      return g.expand(g.setRows(this.#chunk.layer(layer.il).k.tensor, g.cont(placed), this.#first))
    }
    this.#chunk.once(`sinks of ${layer.kvSource}`, put) // layers that read the same rows find them there
  }

  /** Scores f32[m, n · g, G] with those of the sinks, which are the first rows, made anew for queries f32[dK, H, n]. */
  score(scores: Tensor, layer: AttentionLayer, q: Tensor): Tensor {
    const { g } = this.#chunk
    const [m, rows, G] = scores.ne
    const own = g.mulMat(this.#rotated(layer, this.#first), groupHeads(g, layer, q))
    const [size, row, head, all] = scores.nb
    const others = g.view(scores, [m - this.#sink, rows, G, 1], [row, head, all], this.#sink * size)
    return g.concat(own, g.cont(others), 0)
  }

  #rotated(layer: AttentionLayer, places: Tensor): Tensor {
    const { g } = this.#chunk
    return g.permute(layer.rotate(g, g.permute(this.#stored(layer.il), 0, 2, 1, 3), places), 0, 2, 1, 3)
  }

  /** Their own places, which are also their rows. */
  get #first(): Tensor {
    return this.#places('first', this.#sink, () => 0)
  }

  #places(name: string, n: number, first: (cache: KvCache) => number): Tensor {
    const fill = (data: Int32Array, cache: KvCache) => data.forEach((_, i) => (data[i] = first(cache) + i))
    return this.#chunk.once(`sinks ${name}`, () => this.#chunk.input(I32, [n], fill))
  }

  #stored(il: number): Tensor {
    return storeOf(this.#chunk.layer(il).stores, 'sinks').tensor
  }
}
