/**
 * SparQ: the largest components of a query say most about its scores, and the largest scores most about its output. So a
 * decoded token reads r components of every key to guess the scores, then the k best keys and their values in full; what
 * the guess gives to the others goes to the mean of all values. Nothing is dropped.
 *
 * Ribar et al., "SparQ Attention: Bandwidth-Efficient LLM Inference" (arXiv 2312.04985), section 4, algorithm 1, for query
 * heads that share a KV head too: they choose components by the sum of their |q|, and keys by the sum of their guessed
 * probabilities (the published GQA code; that of the experiments sums raw scores).
 *
 * Where we differ:
 * - of the k keys, the newest ones (`local`, k/4) are always among them, as in the experiments; these count the current key
 *   on top of k, here it is one of the newest.
 * - where the method would read no less than everything, everything is read: with k of T keys and r of d components as soon
 *   as k + T·r/2d ≥ T (T in whole tiles, kv/layout.ts); and up to `from` keys, where choosing takes longer than reading.
 * - where a model's heads have sinks, they take their part of the guess and of the keys read alike.
 * - `store=once` reads whole keys for the guess, with the components not chosen at 0: a processor fetches 64 bytes at
 *   least, half a key of 64 components, so it saves values only. So do keep methods that turn keys to other places with
 *   every step (streaming), for whose keys no second copy can be kept.
 * - where rows were dropped, the mean is that of the rows left.
 *
 * Prompts are read densely. Cost per token, layer and KV head: T·r + 2·k·d + 4·d elements read and written, against 2·T·d, and
 * d written for the second copy of keys; 2·g·(T·r + 2·k·d) FLOPs. Memory: 3/2 of dense when keys are stored twice.
 */
import { z } from 'zod'
import type { LayerShape } from '../../../core/shape.ts'
import type { LayerStores } from '../../../kv/cache.ts'
import { writeRows } from '../../kernels/write.ts'
import { readDensely } from '../../kernels/read-densely.ts'
import { keysDense, type KvView, type Projected, type Read, type ReadMethod } from '../../method.ts'
import { choose } from './choose.ts'
import { readChosen } from './read-chosen.ts'
import { commitMean, meanLayout, meanWay, type MeanWay, ValueMean } from './value-mean.ts'

const tokens = z
  .number()
  .int()
  .max(2 ** 24)

const options = z.object({
  r: z.number().int().min(1).max(1024).default(32).describe('components of every key that are read (at most the head dimension)'),
  k: tokens.min(1).default(128).describe('keys that are read in full, with their values (tokens)'),
  local: z.number().min(0).max(1).default(0.25).describe('share of k that always goes to the newest keys'),
  store: z
    .enum(['twice', 'once'])
    .default('twice')
    .describe('keys stored by token and by component, or by token only: a third less memory, but whole keys are read'),
  from: tokens.min(0).default(2048).describe('up to so many keys all are read: to choose among few takes longer (tokens)'),
  realloc: z.boolean().default(true).describe('what the guess gives to keys not read goes to the mean of all values'),
})
type Options = z.output<typeof options>

export const sparq: ReadMethod<typeof options> = {
  name: 'sparq',
  axis: 'read',
  summary: 'A decoded token guesses its scores from some components of every key, and reads the best keys in full.',
  source: 'SparQ, arXiv 2312.04985',
  cost: 'G·(T·r + 2·k·d)·e bytes per layer and token; prompts as dense; half as much memory again for the second copy of keys',
  options,
  refuses({ layers }, { r }) {
    const least = Math.min(...layers.map(({ dK }) => dK))
    return r > least ? `r is ${r}, but its keys have ${least} components` : null
  },
  bind: sparqRead,
}

type Facts = {
  /** Nothing was dropped: every layer and head holds the same rows. */
  readonly isWhole: boolean
  /** So few keys are there that all are read. */
  readonly isShort: boolean
  readonly mean: MeanWay | null
}

function sparqRead({ r, k, local, store, from, realloc }: Options): Read<Facts> {
  const nLocal = Math.floor(k * local)
  /** Components of each key that the guess reads. */
  const nGuessed = ({ stores }: LayerStores, { dK }: LayerShape) => (stores['kT'] ? r : dK)
  /** Whether a query reads all `nKv` rows that a read covers. */
  const readsAll = (stores: LayerStores, layer: LayerShape, { nKv, isShort }: { nKv: number; isShort: boolean }) =>
    isShort || nKv <= k + (nKv * nGuessed(stores, layer)) / (layer.dK + layer.dV)

  return {
    phases: 'decode',
    readsTiles: (nRows) => nRows > from,
    stores(layer, own, positions) {
      const v = { ...own['v']!, order: 'rows' as const }
      const kT = { ...own['k']!, order: 'transposed' as const }
      return {
        ...own,
        v,
        ...(store === 'twice' && positions === 'absolute' && { kT }),
        ...(realloc && { mean: meanLayout(layer) }),
      }
    },
    facts: (cache) => ({
      isWhole: cache.isWhole,
      isShort: cache.rows.nRows + 1 <= from,
      mean: realloc ? meanWay(cache) : null,
    }),

    record(chunk, { isWhole, isShort, mean: way }, wantsProbs) {
      const mean = way && new ValueMean(chunk, way)
      return {
        write(view: KvView, projected: Projected) {
          const { il } = view.layer
          const { kT } = chunk.layer(il).stores
          if (kT) writeRows(chunk, { il, store: kT, perHead: !isWhole }, projected.rotated.k)
          mean?.write(view, projected)
        },
        attend(view: KvView) {
          const { g } = chunk
          const stores = chunk.layer(view.layer.il)
          if (readsAll(stores, view.layer, { nKv: view.nKv, isShort })) return readDensely(g, view, wantsProbs)
          const chosen = choose(chunk, { r, k, nLocal, isWhole }, view, stores.stores['kT'])
          return readChosen(chunk, view, chosen, mean && mean.read(view))
        },
      }
    },

    commit(cache, { mean }) {
      if (mean) commitMean(cache, mean)
    },
    truncate(cache) {
      delete cache.memo.read
      return true
    },

    /** A key with its value counts 1, a component of a key its part of that: so this times dK + dV is the traffic. */
    cost(layer, cache, { nTokens, nKv }, { isShort }) {
      const { nRows } = cache.rows
      const stores = cache.layers[layer.il]!
      if (readsAll(stores, layer, { nKv, isShort })) return keysDense(nRows, nTokens)
      return Math.round(Math.min(k, nRows + nTokens) + ((nRows + nTokens) * nGuessed(stores, layer)) / (layer.dK + layer.dV))
    },
  }
}
