/**
 * Methods that keep the keys of the highest scores: every KV head keeps so many of the best, and the most recent ones; the rest is
 * dropped from memory at the end of a prompt, and then one key for every token. Keys stay rotated to their positions.
 *
 * A method says what a key is worth: numbers that it records for each key. What of them remains, who leaves and when is here.
 * Of equal scores the oldest key leaves first.
 *
 * All layers hold the same number of rows, each its own choice of them: so layers that read each other's keys, or see only a window
 * of them, are not served.
 */
import type { z } from 'zod'
import type { LayerShape, ModelShape } from '../../core/shape.ts'
import { F32 } from '../../ggml/types.ts'
import { type CacheLayer, type KvCache, storeOf } from '../../kv/cache.ts'
import type { StoreLayout } from '../../kv/layout.ts'
import type { Store } from '../../kv/store.ts'
import type { Chunk } from '../chunk.ts'
import type { Keep, KeepMethod, KeepPart } from '../method.ts'
import { inPlace } from './all.ts'

/** Keys that each KV head keeps. */
export type Budget = {
  /** Those of the highest scores among all but the most recent ones. */
  readonly best: number
  readonly recent: number
}

export interface KeyScore extends Pick<Keep, 'wantsProbs' | 'prefills' | 'maxChunk'> {
  /** Asked at the end of a sequence's first prompt; what it says holds from then on. */
  budget(cache: KvCache): Budget
  /** Numbers of a key in each KV head, of which the highest counts. Default 1. */
  width?(layer: LayerShape): number
  /** What a step gives to a key is added to what it has; otherwise it takes its place. */
  readonly adds?: true
  /** All heads of a layer keep the same keys, by the sums of their scores. */
  readonly perLayer?: true
  /** Records what a chunk gives to each key. */
  record(chunk: Chunk, scored: Scored): Partial<Pick<KeepPart, 'write' | 'prefill' | 'observe'>>
}

export interface Scored {
  /** Where the numbers of a layer's keys go: f32[width, rows, G]. */
  readonly into: (il: number) => Store
  /** Rows that were there before the chunk; said only if it has several tokens. */
  readonly nBefore: number
}

/** A method, with its score in the place of what {@link KeepMethod} asks for. */
export interface ScoredMethod<O extends z.ZodObject> extends Omit<KeepMethod<O>, 'axis' | 'bind'> {
  readonly score: (options: z.output<O>, shape: ModelShape) => KeyScore
}

export function keepByScore<O extends z.ZodObject>({ score, ...method }: ScoredMethod<O>): KeepMethod<O> {
  return {
    ...method,
    axis: 'keep',
    refuses: (shape, options) => refusal(shape) ?? method.refuses?.(shape, options) ?? null,
    bind: (options, shape) => keep(score(options, shape)),
  }
}

function refusal({ layers }: ModelShape): string | null {
  if (layers.some(({ il, kvSource }) => kvSource !== il)) return "its layers read each other's keys, and want different ones"
  if (layers.some(({ visible }) => typeof visible === 'object')) return 'its windows already drop keys'
  return layers.every(({ visible }) => visible === 'causal') ? null : 'its tokens do not attend to themselves'
}

type Facts = {
  /** Heads hold different keys. */
  readonly perHead: boolean
  /** Rows before a chunk of several tokens, for its graph may depend on them. */
  readonly nBefore: number | null
}

function keep(score: KeyScore): Keep<Facts> {
  const from = score.adds ? 'fresh' : 'score'
  return {
    ...score,
    positions: 'absolute',
    capacity: (nCtx) => nCtx,
    stores(layer, own) {
      const store = scoreLayout(layer, score.width?.(layer))
      return score.adds ? { ...own, score: store, fresh: store } : { ...own, score: store }
    },
    facts: ({ rows }, { nTokens }) => ({ perHead: !rows.isIdentity, nBefore: nTokens > 1 ? rows.nRows : null }),
    record(chunk, { perHead, nBefore }) {
      const scored = { into: (il: number) => storeOf(chunk.layer(il).stores, from), nBefore: nBefore ?? 0 }
      const { write, ...others } = score.record(chunk, scored)
      // At most one row is free, and the first new token takes it: rows in use lie together whatever was dropped.
      const part = inPlace(chunk, { perHead })
      return {
        ...part,
        ...others,
        write(layer, rows) {
          part.write(layer, rows)
          write?.(layer, rows)
        },
      }
    },

    commit(cache, { nBefore }, endsPrompt) {
      const { nRows } = cache.rows
      const nNew = nBefore === null ? 1 : nRows - nBefore
      if (score.adds) for (const [, layer] of cache.owned) addFresh(layer, nNew)
      if (!endsPrompt) return
      const { best, recent } = (cache.memo.keep ??= score.budget(cache)) as Budget
      const nOlder = nRows - recent
      if (nOlder <= best) return
      for (const [il, layer] of cache.owned) {
        const scores = scoresOf(layer, nOlder, score.perLayer === true)
        if (nOlder === best + 1) for (const [head, map] of layer.rows.entries()) map.drop(lowest(scores[head]!))
        else
          cache.keep(
            il,
            scores.map((list) => [...highest(list, best), ...newest(nRows, recent)]),
          )
      }
    },

    /** Scores hold what queries gave that would be cut off, and the budget may be a share of a prompt that is. */
    truncate: () => false,
  }
}

export function scoreLayout({ nHeadKv: nHead }: LayerShape, width = 1): StoreLayout {
  return { width, nHead, type: F32, order: 'rows' }
}

/** The newest `nNew` keys had nothing before: what stands in their rows was of others. */
function addFresh({ rows, stores }: CacheLayer, nNew: number): void {
  const { layout, capacity } = storeOf(stores, 'score')
  const [score, fresh] = ['score', 'fresh'].map((name) => storeOf(stores, name).data()) as [Float32Array, Float32Array]
  for (const [head, map] of rows.entries()) {
    const at = (row: number) => (head * capacity + row) * layout.width
    const end = at(map.highWater)
    for (let i = at(0); i < end; i++) score[i]! += fresh[i]!
    for (let rank = map.nRows - nNew; rank < map.nRows; rank++) {
      const row = map.row(rank)
      score.set(fresh.subarray(at(row), at(row + 1)), at(row))
    }
  }
}

/** Of each head the scores of its oldest `n` keys, oldest first. */
function scoresOf({ rows, stores }: CacheLayer, n: number, perLayer: boolean): Float32Array[] {
  const store = storeOf(stores, 'score')
  const data = store.data() as Float32Array
  const { width } = store.layout
  const scores = rows.map((map, head) => {
    const list = new Float32Array(n)
    for (let rank = 0; rank < n; rank++) {
      const at = (head * store.capacity + map.row(rank)) * width
      let most = data[at]!
      for (let i = 1; i < width; i++) if (data[at + i]! > most) most = data[at + i]!
      list[rank] = most
    }
    return list
  })
  if (!perLayer) return scores
  const sums = scores[0]!.map((_, rank) => scores.reduce((sum, list) => sum + list[rank]!, 0))
  return rows.map(() => sums)
}

function lowest(scores: Float32Array): number {
  let lowest = 0
  for (let rank = 1; rank < scores.length; rank++) if (scores[rank]! < scores[lowest]!) lowest = rank
  return lowest
}

/** Where the `n` highest are, ascending. */
function highest(scores: Float32Array, n: number): number[] {
  if (n === 0) return []
  const least = scores.slice().sort()[scores.length - n]!
  let nEqual = n - scores.reduce((count, score) => count + (score > least ? 1 : 0), 0)
  const ranks: number[] = []
  for (let rank = scores.length - 1; rank >= 0; rank--) {
    if (scores[rank]! > least || (scores[rank] === least && nEqual-- > 0)) ranks.push(rank)
  }
  return ranks.reverse()
}

function newest(nRows: number, recent: number): number[] {
  return Array.from({ length: recent }, (_, i) => nRows - recent + i)
}
