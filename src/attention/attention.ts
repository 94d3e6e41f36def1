/** A setting at work on a model: the answers of the axes put together to the attention of one sequence. */
import type { Json } from '../core/json.ts'
import type { BoundAttention } from '../core/request.ts'
import { type LayerShape, type ModelShape, windowOf } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { KvCache } from '../kv/cache.ts'
import { bytesPerToken, type CacheLayout, type LayerLayout, residentTotal, roundUp, TILE } from '../kv/layout.ts'
import type { Chunk, ChunkSize } from './chunk.ts'
import { keepAll } from './keep/all.ts'
import { groupHeads } from './kernels/heads.ts'
import { qkScores } from './kernels/scores.ts'
import { type BaseAttention, type Keep, keysDense, type Read, type Share, type SharePart } from './method.ts'
import { readAll } from './read/dense.ts'
import { shareNothing } from './share/nothing.ts'

/** ggml type ids of cached keys and values. */
export interface CacheTypes {
  readonly k: number
  readonly v: number
}

/** All that the graph of a chunk depends on, besides the addresses of its stores. */
export interface ChunkFacts extends ChunkSize {
  readonly share: Json
  readonly keep: Json
  readonly read: Json
}

/** Rows that a read is rounded up to; recording a graph again costs a tenth of a short step. */
const READ_STEP = 256
const SHORT_STEP = 64
const SHORT_ROWS = 512

export class Attention implements BoundAttention {
  /** The setting as it is written, with the options that are not the defaults. */
  readonly spec: string
  readonly shape: ModelShape
  readonly #share: Share
  readonly #keep: Keep
  readonly #read: Read
  /** KV heads of all layers, by what their queries see. */
  readonly #heads = new Map<number, number>()
  /** Every layer has rows of its own and reads all of them. */
  readonly #isPlain: boolean

  constructor(spec: string, shape: ModelShape, axes: { readonly share?: Share; readonly keep?: Keep; readonly read?: Read }) {
    this.spec = spec
    this.shape = shape
    this.#share = axes.share ?? shareNothing
    this.#keep = axes.keep ?? keepAll(shape)
    this.#read = axes.read ?? readAll
    this.#isPlain = this.#share === shareNothing && this.#read === readAll && !shape.sharing
    for (const layer of shape.layers) {
      const window = windowOf(layer)
      this.#heads.set(window, (this.#heads.get(window) ?? 0) + layer.nHeadKv)
    }
  }

  /** Tokens that a sequence may have in a context of `nCtx`; Infinity if it can go on for ever: what it keeps fits and does not grow. */
  mostSeen(nCtx: number): number {
    const most = this.#keep.unbounded && this.#keep.capacity(Infinity) <= nCtx ? Infinity : nCtx
    return Math.min(most, this.shape.nPositions ?? Infinity)
  }

  /** What a cache of this setting stores. */
  layout(types: CacheTypes): CacheLayout {
    const layers = this.shape.layers.map((layer): LayerLayout => {
      const { nHeadKv: nHead, dK, dV } = layer
      const plain: LayerLayout = {
        k: { width: dK, nHead, type: types.k, order: 'rows' },
        v: { width: dV, nHead, type: types.v, order: 'transposed' },
      }
      const kept = this.#keep.stores?.(layer, plain) ?? plain
      const read = this.#reads(layer) ? (this.#read.stores?.(layer, kept, this.#keep.positions) ?? kept) : kept
      const isOwner = layer.kvSource === layer.il
      const own = isOwner ? read : Object.fromEntries(Object.entries(read).filter(([, store]) => store.ofReader))
      return this.#share.stores?.(layer, own) ?? own
    })
    return { layers, kvSource: this.shape.layers.map(({ kvSource }) => kvSource) }
  }

  /** Rows that a sequence of up to `nCtx` tokens needs at once. */
  capacity(nCtx: number): number {
    return this.#keep.capacity(nCtx)
  }

  /** Bytes that a token adds before anything is dropped. */
  bytesPerToken(types: CacheTypes): number {
    return bytesPerToken(this.layout(types))
  }

  /** Resident bytes of `nTokens`, if none is dropped. */
  bytesOf(types: CacheTypes, nTokens: number): number {
    return residentTotal(this.layout(types), nTokens)
  }

  /** Tokens that the next chunk may bring at most. */
  maxChunk(cache: KvCache): number {
    return Math.min(...[this.#share, this.#keep, this.#read].map((axis) => axis.maxChunk?.(cache) ?? Infinity))
  }

  /** Times that a chunk of `nTokens` runs layers which depend on themselves; with as many as it has tokens all are exact. */
  nPasses(nTokens: number): number {
    const { sharing } = this.shape
    return sharing ? Math.min(nTokens, this.#share.iterations ?? sharing.forwardPasses + sharing.backwardPasses) : 1
  }

  /** What the graph of the next `nTokens` depends on. Chunks of a cache with equal facts are computed by the same graph. */
  facts(cache: KvCache, nTokens: number): ChunkFacts {
    const size = { nTokens, nKv: this.#nKv(cache, nTokens) }
    return {
      ...size,
      share: this.#share.facts?.(cache, size) ?? null,
      keep: this.#keep.facts?.(cache, size) ?? null,
      read: this.#read.facts?.(cache, size) ?? null,
    }
  }

  /** Rounded up, so that a decode graph serves many steps. */
  #nKv({ rows }: KvCache, nTokens: number): number {
    const nRows = Math.max(rows.highWater, rows.nRows + nTokens)
    if (this.#read.readsTiles?.(nRows)) return roundUp(nRows, TILE)
    return roundUp(nRows, nRows <= SHORT_ROWS ? SHORT_STEP : READ_STEP)
  }

  /** Records the chunk; the result is called for each layer with what was projected from the chunk's tokens. */
  record(chunk: Chunk, facts: ChunkFacts): Recorded {
    const base = this.#base(chunk, facts)
    return { base, attend: this.#share.record(chunk, facts.share, base) }
  }

  #base(chunk: Chunk, facts: ChunkFacts): BaseAttention {
    const { g, nTokens } = chunk
    const { wantsProbs = false, positions } = this.#keep
    const keep = this.#keep.record(chunk, facts.keep)
    const isPrefill = nTokens > 1 && keep.prefill !== undefined
    const ordinary = this.#read.record(chunk, facts.read, wantsProbs)
    const openly = readAll.record(chunk, null, true)
    const plainly = readAll.record(chunk, null, wantsProbs)
    const isAsked = (il: number) => this.#share.wantsProbs?.(il) === true
    const reader = (layer: LayerShape) =>
      isAsked(layer.il) ? openly : this.#reads(layer) && this.#readsPhase(nTokens) ? ordinary : plainly

    const reading = <T>(record: () => T): T => g.within({ part: 'attention.read' }, record)

    const base: BaseAttention = {
      write: (layer, rows) => g.within({ part: 'attention.write' }, () => keep.write(layer, rows)),
      view: (layer, projected) => reading(() => keep.view(layer, projected)),
      scores: (view, projected) =>
        keep.scores?.(view, projected) ?? qkScores(g, view.layer, view.k, groupHeads(g, view.layer, view.q)),
      read(view, projected) {
        const { il } = view.layer
        return reading(() => {
          const found = isPrefill ? keep.prefill!(view, projected, isAsked(il)) : reader(view.layer).attend(view, projected)
          if (found.p) keep.observe?.(il, found.p)
          return found
        })
      },
      store(layer, projected) {
        base.write(layer, { k: positions === 'absolute' ? projected.rotated.k : projected.k, v: projected.v })
      },
      attend: (layer, projected) => {
        const isOwner = layer.kvSource === layer.il
        if (isOwner) base.store(layer, projected)
        const view = base.view(layer, projected)
        if (isOwner && this.#reads(layer)) g.within({ part: 'attention.write' }, () => ordinary.write?.(view, projected))
        const found = base.read(view, projected)
        return layer.visible === 'strict' ? { ...found, o: afterFirst(chunk, found.o) } : found
      },
      isPlain: !isPrefill && this.#read === readAll && !wantsProbs,
    }
    return base
  }

  /**
   * Whether the read axis is asked in a layer: where a window bounds what there is to read, or the share axis wants all
   * probabilities, it is read as it is.
   */
  #reads({ il, visible }: LayerShape): boolean {
    return typeof visible === 'string' && !this.#share.wantsProbs?.(il)
  }

  #readsPhase(nTokens: number): boolean {
    return nTokens === 1 || (this.#read.phases === 'both' && !this.#keep.prefills)
  }

  /** Keys that a chunk of these facts reads, and that dense attention would, summed over layers and KV heads. */
  cost(cache: KvCache, facts: ChunkFacts): { readonly read: number; readonly dense: number } {
    let [dense, kept] = [0, 0]
    for (const [window, nHeads] of this.#heads) {
      dense += nHeads * keysDense(cache.nTokens, facts.nTokens, window)
      kept += nHeads * keysDense(cache.rows.nRows, facts.nTokens, window)
    }
    // Where layers read all that is kept, there is no need to go through them at every token.
    if (this.#isPlain) return { read: kept, dense }
    let read = 0
    for (const layer of this.shape.layers) {
      const { il, nHeadKv } = layer
      if (cache.layers[il]!.rows.length === 0) continue
      const isOwn = this.#reads(layer) && this.#readsPhase(facts.nTokens)
      const keys = (isOwn ? this.#read : readAll).cost(layer, cache, facts, facts.read)
      read += nHeadKv * keys * this.#nRuns(il, facts.nTokens) * (this.#share.costShare?.(il, facts.share) ?? 1)
    }
    return { read, dense }
  }

  /** Times that a chunk reads in a layer: in a group that depends on itself, often in all but the last (iterations.ts). */
  #nRuns(il: number, nTokens: number): number {
    const { layers, sharing } = this.shape
    const isRepeated = sharing !== undefined && layers.some((layer) => layer.il <= il && layer.kvSource > il)
    return isRepeated ? this.nPasses(nTokens) : 1
  }

  /** After a step of these facts that succeeded, with its tokens appended. */
  commit(cache: KvCache, facts: ChunkFacts, endsPrompt: boolean): void {
    this.#read.commit?.(cache, facts.read, endsPrompt)
    this.#keep.commit?.(cache, facts.keep, endsPrompt)
    this.#share.commit?.(cache, facts.share, endsPrompt)
  }

  /** Forgets all but the first `nTokens`; false, with nothing changed that matters, if what is left would not be what it was then. */
  truncate(cache: KvCache, nTokens: number): boolean {
    if (nTokens === cache.nTokens) return true
    if (nTokens > cache.nTokens || !cache.isWhole) return false
    for (const axis of [this.#share, this.#keep, this.#read]) if (axis.truncate?.(cache, nTokens) === false) return false
    cache.truncate(nTokens)
    return true
  }
}

/** A chunk's attention, and its parts. */
export interface Recorded {
  readonly attend: SharePart
  readonly base: BaseAttention
}

/** Outputs f32[dV · H, n] of a layer where no query sees its own key: that of the first token of all is zero. */
export function afterFirst(chunk: Chunk, o: Tensor): Tensor {
  const ones = (data: Float32Array, { nTokens }: KvCache) => data.fill(1).fill(0, 0, nTokens === 0 ? 1 : 0)
  return chunk.g.mul(
    o,
    chunk.once('after first', () => chunk.input(F32, [1, chunk.nTokens], ones)),
  )
}
