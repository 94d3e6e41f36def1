/**
 * v̄, the mean of the values a KV head holds: what stands for the values a query does not read.
 *
 * It is a running mean in f32 (in f16 it would drift), brought forward by every step, v̄ ← (n·v̄ + Σ v) / (n + m). Where it is
 * not that of the rows there are (the cache was truncated, or a step failed half way) it is computed from all of them once;
 * where rows were dropped, from those that are left, in every step.
 */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { StoreLayout } from '../kv/layout.ts'
import type { Kept, Projected, Step, StepPart } from './method.ts'
import { weighStored } from './pieces.ts'

export class ValueMean {
  /** Rows that a cache's stored mean is that of. */
  readonly #covered = new WeakMap<SequenceCache, number>()

  layout({ headDim: width, nHeadKv: nHead }: ModelShape): StoreLayout {
    return { width, nHead, type: F32, order: 'rows', fixed: 1 }
  }

  /** How the mean is come by, which makes for different graphs. */
  way(cache: SequenceCache): 'running' | 'again' | 'each time' {
    if (!cache.isWhole) return 'each time'
    return (this.#covered.get(cache) ?? 0) === cache.rows.nRows ? 'running' : 'again'
  }

  /**
   * For each layer, once the new rows are written: the mean f32[d, 1, G] of what the part's queries see, with the new rows or,
   * where no query sees its own key, without them. Stored as `mean`, with the new rows, by the layer whose rows they are.
   */
  start(step: Step, part: StepPart): (kept: Kept, projected: Projected) => Tensor {
    const { g, shape } = step
    const { cache, nTokens, nRead, isStrict } = part
    const way = this.way(cache)
    const nAll = () => cache.rows.nRows + nTokens
    /** `share` for each of the first `n` rows, 0 for the others: f32[…, G]. */
    const shares = (ne: readonly [number, number], n: () => number, share: (row: number) => number) =>
      g.input(F32, [...ne, shape.nHeadKv], (data) => {
        const size = ne[0] * ne[1]
        for (let i = 0; i < data.length; i++) data[i] = i % size < n() ? share(i % size) : 0
        if (way !== 'each time') this.#covered.set(cache, nAll())
      })
    const equal = () => 1 / nAll()
    if (way === 'running') {
      const before = g.input(F32, [1], (data) => (data[0] = cache.rows.nRows / nAll()))
      const each = shares([1, nTokens], () => nTokens, equal)
      return (kept, projected) => {
        const { stored, isOwner } = meanOf(cache, kept)
        if (!isOwner) return stored
        const old = isStrict ? g.expand(g.cont(stored)) : stored
        const mean = g.add(g.mul(stored, before), g.outProd(g.permute(projected.v, 0, 2, 1, 3), each))
        g.expand(g.cpy(mean, stored))
        return isStrict ? old : mean
      }
    }
    const all = shares([nRead, 1], nAll, equal)
    const others = shares([nRead, 1], nAll, (row) => (row === cache.rows.nextRow(0) ? 0 : 1 / Math.max(1, cache.rows.nRows)))
    return (kept) => {
      const { stored, isOwner } = meanOf(cache, kept)
      const mean = weighStored(step, all, kept.v)
      if (way === 'again' && isOwner) g.expand(g.cpy(mean, stored))
      return isStrict ? weighStored(step, others, kept.v) : mean
    }
  }
}

function meanOf(cache: SequenceCache, { layer }: Kept): { readonly stored: Tensor; readonly isOwner: boolean } {
  const { stores, isOwner } = cache.layers[layer.il]!
  return { stored: stores['mean']!.tensor, isOwner }
}
