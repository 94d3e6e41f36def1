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
import type { Kept, Step, StepPart } from './method.ts'
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

  /** For each layer, once the new rows `v` f32[d, G, m] are written: the mean f32[d, 1, G] with them, stored as `mean`. */
  start({ g, shape: { nHeadKv: G } }: Step, part: StepPart): (kept: Kept, v: Tensor) => Tensor {
    const { cache, nTokens, nRead } = part
    const way = this.way(cache)
    /** 1 / (n + m) for each of `n` rows in use, 0 for the others. */
    const shares = (nRows: () => number) => (data: Float32Array) => {
      const all = cache.rows.nRows + nTokens
      if (way !== 'each time') this.#covered.set(cache, all)
      for (let head = 0; head < G; head++) {
        const at = (head * data.length) / G
        data.fill(1 / all, at, at + nRows())
        data.fill(0, at + nRows(), at + data.length / G)
      }
    }
    if (way === 'running') {
      const before = g.input(F32, [1], (data) => (data[0] = cache.rows.nRows / (cache.rows.nRows + nTokens)))
      const each = g.input(
        F32,
        [1, nTokens, G],
        shares(() => nTokens),
      )
      return (kept, v) => {
        const stored = meanOf(cache, kept)
        const mean = g.add(g.mul(stored, before), g.outProd(g.permute(v, 0, 2, 1, 3), each))
        g.expand(g.cpy(mean, stored))
        return mean
      }
    }
    const each = g.input(
      F32,
      [nRead, 1, G],
      shares(() => cache.rows.nRows + nTokens),
    )
    return (kept) => {
      const mean = weighStored({ g } as Step, each, kept.v)
      if (way === 'again') g.expand(g.cpy(mean, meanOf(cache, kept)))
      return mean
    }
  }
}

function meanOf(cache: SequenceCache, { layer }: Kept): Tensor {
  return cache.layers[layer.il]!.stores['mean']!.tensor
}
