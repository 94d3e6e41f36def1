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
 * the key of the token being computed too, for it is in memory beside those that are kept. When keys leave, and which models are
 * refused, is the same for all methods by score (by-score.ts).
 *
 * Cost per token and layer: 2·G·(heavy + recent + 1)·d·e bytes read, 4·H·(heavy + recent + 1)·d FLOPs, and the scores: 8 bytes
 * per key and KV head. A prompt is held whole until its end, and read by products instead of flash attention, which tells no
 * probabilities, in blocks (block-reader.ts): about 4.6 instead of 2.6 ns of one core per query, head and key.
 */
import { z } from 'zod'
import type { LayerShape } from '../../core/shape.ts'
import { F16 } from '../../ggml/types.ts'
import type { KvCache } from '../../kv/cache.ts'
import { type LayerLayout, residentTotal } from '../../kv/layout.ts'
import { mostInBlocks, readInBlocks } from './prompt-blocks.ts'
import { type Budget, keepByScore, scoreLayout } from './by-score.ts'
import { storeSums } from './column-sums.ts'

const UNITS = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const
/** Of the prompt, as in the paper's evaluation: a tenth each of heavy hitters and recent keys. */
const DEFAULT_BUDGET = '20%'
const AMOUNT = /^(\d+(?:\.\d+)?)(%|KiB|MiB|GiB)$/
const tokens = z
  .int()
  .min(0)
  .max(2 ** 24)

const options = z
  .object({
    budget: z
      .union([tokens.min(2), z.string().regex(AMOUNT, 'a share is written 20%, a size 64MiB')])
      .optional()
      .describe(
        'keys per KV head that are in memory at once, the current one too: tokens, a share of the prompt (as the default, 20%), or bytes (64MiB)',
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
  .refine(({ budget, heavy, recent }) => budget === undefined || heavy === undefined || recent === undefined, {
    path: ['budget'],
    message: 'heavy and recent together are the budget: leave it out',
  })
  .refine(({ budget, heavy = 0, recent = 0 }) => typeof budget !== 'number' || heavy + recent < budget, {
    path: ['budget'],
    message: 'too little for that many and the current key',
  })
type Options = z.output<typeof options>

export const h2o = keepByScore<typeof options>({
  name: 'h2o',
  summary: 'Keeps, per KV head, the keys that got most attention so far and the most recent ones; drops the rest.',
  source: 'H2O, arXiv 2306.14048',
  cost: '2·G·(heavy + recent + 1)·d·e bytes per layer and token; a prompt is held whole and takes 1 to 2 times as long as dense',
  options,
  refuses({ layers }, chosen) {
    const bytes = bytesOf(chosen.budget)
    const least = residentTotal({ layers: layers.map((layer) => smallest(layer, chosen)) }, 2)
    return bytes !== null && bytes < least ? `its smallest cache takes ${Math.ceil(least / UNITS.KiB)}KiB` : null
  },
  score: (chosen, { layers }) => ({
    wantsProbs: true,
    prefills: true,
    adds: true,
    budget: (cache) => resolve(chosen, cache),
    width: (layer) => widthOf(layer, chosen),
    maxChunk: ({ rows }) => mostInBlocks(layers, rows.nRows),
    record: ({ g, nTokens: n, nKv }, { into, nBefore }) => ({
      observe: (il, p) => storeSums(g, into(il), p, { n, nKv }),
      prefill: (view) => ({ o: readInBlocks(g, view, { into: into(view.layer.il), nBefore }), p: null }),
    }),
  }),
})

const widthOf = ({ nHead, nHeadKv }: LayerShape, { aggregate }: Options) => (aggregate === 'max' ? nHead / nHeadKv : 1)

/** What a layer stores, in the smallest types. */
function smallest(layer: LayerShape, chosen: Options): LayerLayout {
  const { nHeadKv: nHead, dK, dV } = layer
  const score = scoreLayout(layer, widthOf(layer, chosen))
  const k = { width: dK, nHead, type: F16, order: 'rows' } as const
  return { k, v: { width: dV, nHead, type: F16, order: 'transposed' }, score, fresh: score }
}

/** In tokens, for a cache that has just read its prompt. */
function resolve({ budget = DEFAULT_BUDGET, heavy, recent }: Options, cache: KvCache): Budget {
  if (heavy !== undefined && recent !== undefined) return { best: heavy, recent }
  const kept = Math.max(1, nRowsOf(budget, cache) - 1)
  if (recent !== undefined) return { best: Math.max(0, kept - recent), recent: Math.min(recent, kept) }
  const nHeavy = Math.min(heavy ?? Math.floor(kept / 2), kept)
  return { best: nHeavy, recent: kept - nHeavy }
}

function nRowsOf(budget: string | number, { layout, nTokens, capacity }: KvCache): number {
  if (typeof budget === 'number') return budget
  const bytes = bytesOf(budget)
  if (bytes === null) return Math.floor((Number.parseFloat(budget) / 100) * nTokens)
  let [fits, tooMany] = [0, capacity + 1]
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
