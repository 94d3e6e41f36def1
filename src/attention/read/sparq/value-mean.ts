/**
 * v̄, the mean of the values a KV head holds: what stands for the values a query does not read.
 *
 * It is a running mean in f32 (in f16 it would drift), brought forward by every step, v̄ ← (n·v̄ + Σ v) / (n + m). There are two
 * places for it: a step reads the one and writes the other, and which is which changes only once it has succeeded, so a step that
 * is forgotten leaves the mean it began with. After a truncation the mean is computed from all rows once; where rows were dropped,
 * from those that are left, in every step.
 */
import type { Tensor } from '../../../ggml/tensor.ts'
import { F32, I32 } from '../../../ggml/types.ts'
import type { KvCache } from '../../../kv/cache.ts'
import type { StoreLayout } from '../../../kv/layout.ts'
import type { LayerShape } from '../../../core/shape.ts'
import type { Chunk, Fill } from '../../chunk.ts'
import { applyValues } from '../../kernels/values.ts'
import type { AttentionLayer, KvView, Projected } from '../../method.ts'

/** How the mean is come by. */
export type MeanWay = 'running' | 'again' | 'each time'

/** Of how many rows the stored mean is, and in which of the two places it stands. */
export type MeanMemo = { readonly nRows: number; readonly at: 0 | 1 }

const NONE: MeanMemo = { nRows: 0, at: 0 }

function memoOf({ memo }: KvCache): MeanMemo {
  return (memo.read as MeanMemo | undefined) ?? NONE
}

export function meanLayout({ dV: width, nHeadKv: nHead }: LayerShape): StoreLayout {
  return { width, nHead, type: F32, order: 'rows', fixed: 2 }
}

export function meanWay(cache: KvCache): MeanWay {
  if (!cache.isWhole) return 'each time'
  return memoOf(cache).nRows === cache.rows.nRows ? 'running' : 'again'
}

/** After a step that succeeded, with its tokens appended. */
export function commitMean(cache: KvCache, way: MeanWay): void {
  if (way === 'each time') return
  const memo: MeanMemo = { nRows: cache.rows.nRows, at: memoOf(cache).at === 0 ? 1 : 0 }
  cache.memo.read = memo
}

/** The mean of the values that a chunk's queries see, in every layer. */
export class ValueMean {
  readonly #chunk: Chunk
  readonly #way: MeanWay
  /** With the chunk's rows, by the layer whose rows they are: f32[dV, 1, G]. */
  readonly #after = new Map<number, Tensor>()

  constructor(chunk: Chunk, way: MeanWay) {
    this.#chunk = chunk
    this.#way = way
  }

  /** Brings the stored mean of a layer's own rows forward. */
  write(view: KvView, projected: Projected): void {
    const { layer } = view
    if (this.#way === 'each time') return
    const { g } = this.#chunk
    const mean = this.#way === 'running' ? this.#forward(layer, projected.v) : this.#ofAll(view)
    this.#after.set(layer.il, mean)
    g.expand(g.setRows(this.#stored(layer), mean, this.#place('other', 1)))
  }

  /** f32[dV, 1, G], once the new rows are written: with these, or, where no query sees its own key, without them. */
  read(view: KvView): Tensor {
    const { layer } = view
    if (layer.visible === 'strict') return this.#way === 'running' ? this.#before(layer) : this.#ofOthers(view)
    return this.#after.get(layer.kvSource) ?? this.#ofAll(view)
  }

  #forward(layer: AttentionLayer, v: Tensor): Tensor {
    const { g, nTokens } = this.#chunk
    const [, G] = v.ne
    const weight = this.#input('mean: weight', [1], (data, { rows }) => (data[0] = rows.nRows / (rows.nRows + nTokens)))
    const each = this.#input(`mean: each of ${G}`, [1, nTokens, G], (data, { rows }) => data.fill(1 / (rows.nRows + nTokens)))
    return g.add(g.mul(this.#before(layer), weight), g.outProd(g.permute(v, 0, 2, 1, 3), each))
  }

  /** f32[dV, 1, G] as the last step left it. */
  #before(layer: AttentionLayer): Tensor {
    const { g } = this.#chunk
    const stored = this.#stored(layer)
    return this.#chunk.once(`mean: before of ${layer.kvSource}`, () => g.getRows(stored, this.#place('current', stored.ne[2])))
  }

  #stored({ il }: AttentionLayer): Tensor {
    return this.#chunk.layer(il).stores['mean']!.tensor
  }

  /** Where the mean stands, or the place beside it: i32[1, n]. */
  #place(which: 'current' | 'other', n: number): Tensor {
    return this.#chunk.once(`mean: ${which} place for ${n}`, () =>
      this.#chunk.input(I32, [1, n], (data, cache) => {
        const { at } = memoOf(cache)
        data.fill(which === 'current' ? at : 1 - at)
      }),
    )
  }

  /** Of all rows, the new ones too; these lie with those in use together from 0 on. */
  #ofAll(view: KvView): Tensor {
    const { g, nTokens } = this.#chunk
    const { nKv, layer } = view
    const { nHeadKv: G } = layer
    const shares = this.#input(`mean: all of ${nKv}, ${G}`, [nKv, 1, G], (data, { rows }) => {
      const nAll = rows.nRows + nTokens
      for (let i = 0; i < data.length; i++) data[i] = i % nKv < nAll ? 1 / nAll : 0
    })
    return applyValues(g, layer, shares, view)
  }

  /** Of all rows but that of the query itself. */
  #ofOthers(view: KvView): Tensor {
    const { g } = this.#chunk
    const { nKv, layer } = view
    const { il, nHeadKv: G } = layer
    const shares = this.#input(`mean: others of ${il}`, [nKv, 1, G], (data, { layers }) => {
      for (let i = 0; i < data.length; i++) {
        const map = layers[il]!.rows[Math.floor(i / nKv)]!
        const row = i % nKv
        data[i] = row <= map.nRows && row !== map.nextRow(0) ? 1 / Math.max(1, map.nRows) : 0
      }
    })
    return applyValues(g, layer, shares, view)
  }

  #input(key: string, ne: readonly number[], fill: Fill<typeof F32>): Tensor {
    return this.#chunk.once(key, () => this.#chunk.input(F32, ne, fill))
  }
}
