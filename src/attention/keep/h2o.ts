/**
 * H2O: a few tokens, the heavy hitters, collect most of the attention. Every KV head keeps those that collected most so far
 * and the most recent ones; the rest is dropped from memory. The choice is greedy: what is dropped does not come back.
 *
 * Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models" (arXiv 2306.14048),
 * section 4, algorithm 1; the variant that really drops. A prompt is read densely; the score of a key is the sum of the
 * probabilities it got from all queries. At its end every head keeps the `heavy` highest scores among all but the last
 * `recent` keys, and those. Then each token adds its probabilities to the scores, and one key leaves per head. Keys stay
 * rotated to their positions. Shares of heavy and recent as in the paper's evaluation: a tenth of the prompt each.
 *
 * Where we differ: query heads that share a KV head share its cache, so their scores are put together (`aggregate`); the
 * paper's models have no such groups. Of equal scores the oldest key leaves first; the paper leaves that open. `budget` counts
 * the key of the token being computed too, for it is in memory beside those that are kept.
 *
 * Cost per token and layer: 2·G·(heavy + recent + 1)·d·e bytes read, 4·H·(heavy + recent + 1)·d FLOPs, and the scores: 8 bytes
 * per key and KV head. A prompt is held whole until its end, and read by products instead of flash attention, which tells no
 * probabilities, in blocks (column-sums.ts): about 4.6 instead of 2.6 ns of one core per query, head and key.
 */
import { z } from 'zod'
import type { ModelShape } from '../core/shape.ts'
import { PAGE_BYTES } from '../ggml/memory.ts'
import { F16, F32 } from '../ggml/types.ts'
import type { CacheLayer, SequenceCache } from '../kv/cache.ts'
import { type CacheLayout, residentTotal, roundUp } from '../kv/layout.ts'
import type { RowMap } from '../kv/rows.ts'
import type { Store } from '../kv/store.ts'
import { ColumnSums, mostTokens, promptNodes, readPrompt } from './column-sums.ts'
import type { Keep, KeepMethod } from './method.ts'
import { inPlace } from './pieces.ts'

const UNITS = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const
const AMOUNT = /^(\d+(?:\.\d+)?)(%|KiB|MiB|GiB)$/
const tokens = z
  .int()
  .min(0)
  .max(2 ** 24)

const options = z
  .object({
    budget: z
      .union([tokens.min(2), z.string().regex(AMOUNT, 'a share is written 20%, a size 64MiB')])
      .default('20%')
      .describe(
        'keys per KV head that are in memory at once, the current one too: tokens, a share of the prompt (20%), or bytes (64MiB)',
      ),
    heavy: tokens.optional().describe('heavy hitters that are kept (tokens; default: half of the budget, or what recent leaves)'),
    recent: tokens.optional().describe('most recent keys that are kept (tokens; default: the rest of the budget)'),
    aggregate: z
      .enum(['sum', 'max'])
      .default('sum')
      .describe('score of a key from those of the query heads that share it: their sum (their mean ranks alike) or the highest'),
  })
  .refine(({ budget }) => !String(budget).endsWith('%') || Number.parseFloat(String(budget)) <= 100, {
    path: ['budget'],
    message: 'a prompt has no more than 100%',
  })
  .refine(({ heavy, recent }) => heavy !== 0 || recent !== 0, { path: ['recent'], message: 'nothing would be kept' })
  .refine(({ budget, heavy, recent }) => heavy === undefined || recent === undefined || budget === '20%', {
    path: ['budget'],
    message: 'heavy and recent together are the budget: leave it out',
  })
  .refine(({ budget, heavy = 0, recent = 0 }) => typeof budget !== 'number' || heavy + recent < budget, {
    path: ['budget'],
    message: 'too little for that many and the current key',
  })
type Options = z.output<typeof options>

export const h2o: KeepMethod<typeof options> = {
  name: 'h2o',
  axis: 'keep',
  summary: 'Keeps, per KV head, the keys that got most attention so far and the most recent ones; drops the rest.',
  source: 'H2O, arXiv 2306.14048',
  cost: '2·G·(heavy + recent + 1)·d·e bytes per layer and token; a prompt is held whole and takes 1 to 2 times as long as dense',
  options,
  exactFor: (nTokens) => ({ budget: nTokens }),
  tightFor: (nTokens) => ({ heavy: Math.floor(nTokens / 8), recent: Math.floor(nTokens / 6) }),
  refuses(shape, { budget }) {
    const bytes = bytesOf(budget)
    const { nLayer, nHeadKv: nHead, headDim } = shape
    const rows = (width: number, type: number) => ({ width, nHead, type, order: 'rows' as const })
    const score = rows(1, F32)
    const layer = { k: rows(headDim, F16), v: { ...rows(headDim, F16), order: 'columns' as const }, score, fresh: score }
    const least = residentTotal({ layers: Array.from({ length: nLayer }, () => layer) }, 2)
    return bytes !== null && bytes < least ? `its smallest cache takes ${Math.ceil(least / UNITS.KiB)}KiB` : null
  },
  bind: h2oKeep,
}

function h2oKeep(chosen: Options, shape: ModelShape): Keep {
  const { nHead: H, nHeadKv: G } = shape
  const width = chosen.aggregate === 'max' ? H / G : 1
  const budgets = new WeakMap<SequenceCache, Budget>()
  return {
    positions: 'absolute',
    needsProbabilities: true,
    isEndless: false,
    readsPrompts: true,
    nNodes: () => promptNodes(shape),
    nRows: (nCtx) => nCtx,
    /** `score` since the beginning, `fresh` from the last step: a step that fails has changed no score. */
    stores: () => {
      const store = { width, nHead: G, type: F32, order: 'rows' as const }
      return { score: store, fresh: store }
    },
    mostTokens: ({ rows }) => mostTokens(shape, rows.nRows),
    graphKey: ({ rows }, nTokens) => `${rows.isIdentity}:${nTokens > 1 ? rows.nRows : ''}`,

    start(step, part) {
      const { cache, nRead } = part
      const sums = new ColumnSums(step, width)
      const freshOf = (il: number) => cache.layers[il]!.stores['fresh']!
      return {
        // At most one row is free (settle), and the first new token takes it: rows in use lie together whatever was dropped.
        ...inPlace(step, part, !cache.rows.isIdentity),
        read: (kept) => ({ o: readPrompt(step, part, { kept, sums, into: freshOf(kept.layer.il) }), p: null }),
        observe: (il, p) => sums.store(freshOf(il), p, nRead),
      }
    },

    settle(cache, endsPrompt) {
      const scores = cache.owned.map(([il, layer]) => ({ il, layer: new Scores(layer) }))
      for (const { layer } of scores) layer.addFresh()
      if (!endsPrompt) return
      if (!budgets.has(cache)) budgets.set(cache, resolve(chosen, cache))
      const { heavy, recent } = budgets.get(cache)!
      const nOlder = cache.rows.nRows - recent
      if (nOlder <= heavy) return
      for (const { il, layer } of scores) {
        if (nOlder === heavy + 1) layer.dropLowest(nOlder)
        else layer.keepHighest(cache, { il, heavy, nOlder })
      }
    },
  }
}

/** The books of one layer. Rows not in use have a score of 0: a new key starts with the probability it got itself. */
class Scores {
  readonly #rows: readonly RowMap[]
  readonly #score: Float32Array
  readonly #fresh: Float32Array
  readonly #width: number
  readonly #capacity: number

  constructor({ rows, stores }: CacheLayer) {
    const { score, fresh } = stores as { readonly score: Store; readonly fresh: Store }
    this.#rows = rows
    this.#score = score.data() as Float32Array
    this.#fresh = fresh.data() as Float32Array
    this.#width = score.layout.width
    this.#capacity = score.capacity
  }

  addFresh(): void {
    const [score, fresh] = [this.#score, this.#fresh]
    for (const [head, { nHigh }] of this.#rows.entries()) {
      for (let i = this.#at(head, 0); i < this.#at(head, nHigh); i++) score[i]! += fresh[i]!
    }
  }

  /** One of the oldest `nOlder` keys leaves per head; of equal ones the oldest. */
  dropLowest(nOlder: number): void {
    for (const [head, map] of this.#rows.entries()) {
      const list = this.#byRank(head, nOlder)
      let lowest = 0
      for (let rank = 1; rank < nOlder; rank++) if (list[rank]! < list[lowest]!) lowest = rank
      this.#score.fill(0, this.#at(head, map.row(lowest)), this.#at(head, map.row(lowest) + 1))
      map.drop(lowest)
    }
  }

  /** The `heavy` highest of the oldest `nOlder` keys stay, of equal ones the newest, and all newer ones. */
  keepHighest(cache: SequenceCache, { il, heavy, nOlder }: { il: number; heavy: number; nOlder: number }): void {
    const ranks = this.#rows.map(({ nRows }, head) => {
      const list = this.#byRank(head, nOlder)
      const least = heavy === 0 ? Infinity : list.slice().sort()[nOlder - heavy]!
      let nEqual = heavy - list.reduce((n, score) => n + (score > least ? 1 : 0), 0)
      const kept = Array.from({ length: nRows - nOlder }, (_, i) => nRows - 1 - i)
      for (let rank = nOlder - 1; rank >= 0; rank--) {
        if (list[rank]! > least || (list[rank] === least && nEqual-- > 0)) kept.push(rank)
      }
      return kept.reverse()
    })
    cache.keep(il, ranks)
    // Whole pages were given back and read as zeros; on the last one old scores stand behind the rows in use.
    const nPerPage = PAGE_BYTES / Float32Array.BYTES_PER_ELEMENT
    for (const [head, { nHigh }] of this.#rows.entries()) {
      const end = this.#at(head, nHigh)
      this.#score.fill(0, end, roundUp(end, nPerPage))
    }
  }

  /** Scores of the oldest `n` keys, oldest first; of several query heads the highest. */
  #byRank(head: number, n: number): Float32Array {
    const [score, width, map] = [this.#score, this.#width, this.#rows[head]!]
    const list = new Float32Array(n)
    for (let rank = 0; rank < n; rank++) {
      const at = this.#at(head, map.row(rank))
      let most = score[at]!
      for (let i = 1; i < width; i++) if (score[at + i]! > most) most = score[at + i]!
      list[rank] = most
    }
    return list
  }

  #at(head: number, row: number): number {
    return (head * this.#capacity + row) * this.#width
  }
}

interface Budget {
  readonly heavy: number
  readonly recent: number
}

/** In tokens, for a cache that has just read its prompt. */
function resolve({ budget, heavy, recent }: Options, cache: SequenceCache): Budget {
  if (heavy !== undefined && recent !== undefined) return { heavy, recent }
  const kept = Math.max(1, nRowsOf(budget, cache) - 1)
  if (recent !== undefined) return { heavy: Math.max(0, kept - recent), recent: Math.min(recent, kept) }
  const nHeavy = Math.min(heavy ?? Math.floor(kept / 2), kept)
  return { heavy: nHeavy, recent: kept - nHeavy }
}

function nRowsOf(budget: Options['budget'], cache: SequenceCache): number {
  if (typeof budget === 'number') return budget
  const bytes = bytesOf(budget)
  if (bytes === null) return Math.floor((Number.parseFloat(budget) / 100) * cache.nTokens)
  const layers = cache.layers.map(({ stores }) => Object.fromEntries(Object.entries(stores).map(([name, s]) => [name, s.layout])))
  const layout = { layers } as unknown as CacheLayout
  let [fits, tooMany] = [0, cache.capacity + 1]
  while (tooMany - fits > 1) {
    const n = Math.floor((fits + tooMany) / 2)
    if (residentTotal(layout, n) <= bytes) fits = n
    else tooMany = n
  }
  return fits
}

/** Bytes of `64MiB`; null for tokens and shares. */
function bytesOf(budget: Options['budget']): number | null {
  const [, amount, unit] = AMOUNT.exec(String(budget)) ?? []
  return unit === undefined || unit === '%' ? null : Number(amount) * UNITS[unit as keyof typeof UNITS]
}
