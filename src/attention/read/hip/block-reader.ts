/**
 * What HiP reads: per query block the chosen blocks of keys, and a window that begins where the searched keys end and reaches
 * to the query. The two do not overlap, so every key is read at most once and every window key exactly once.
 *
 * Keys are counted by rank: kept rows in order of position. A list belongs to a query block and a head; there are nL lists
 * per KV head (nBlocks, times g if every query head has its own), in the order (query block, query head, KV head).
 */
import { F16, F32, I32 } from '../ggml/types.ts'
import { elementBytes, type Tensor } from '../ggml/tensor.ts'
import { expand, nRounds, searchTree, slotStart, toIndex, type Tree } from './hip-search.ts'
import type { Kept, ReadResult, Step, StepPart } from './method.ts'
import { softmax } from './pieces.ts'

export interface Choice extends Tree {
  /** Keys per block, and the distance between those of them that are scored. */
  readonly blockK: number
  readonly strideK: number
  readonly strideQ: number
  readonly window: number
  /** Lists per KV head and query block: one, or one for each of its query heads. */
  readonly nLists: number
}

/** Query blocks computed together. */
export interface Blocks {
  readonly nBlocks: number
  /** Queries per block. */
  readonly nQueries: number
  /** Rank at which the first block begins, now. */
  readonly first: () => number
  /** Tokens that share a window: a query block, or what is decoded between two searches. */
  readonly span: number
  /** True if row i is the row of rank i. */
  readonly isIdentity: boolean
  /** Called before each computation. */
  readonly filled?: () => void
}

const F16_MINUS_INFINITY = 0xfc00

/** Blocks searched for queries from rank `first` on: those wholly before the window of the first of them. */
export function nSearched({ blockK, window }: Choice, first: number): number {
  return Math.floor(Math.max(0, first + 1 - window) / blockK)
}

/** Keys in the list and in the window of one query. */
export function keysAttended(choice: Choice, first: number, query: number): number {
  const n = nSearched(choice, first)
  return Math.min(n, choice.nSlots) * choice.blockK + query + 1 - n * choice.blockK
}

/** The inputs of some query blocks, for all layers, and what they compute. */
export class BlockReader {
  readonly #step: Step
  readonly #part: StepPart
  readonly #choice: Choice
  readonly #blocks: Blocks
  /** f32[nSlots, nBlocks] */
  readonly #starts: Tensor
  readonly #lengths: Tensor
  /** Ranks of the window's keys, f32[nWindow, nBlocks]. */
  readonly #window: Tensor
  /** f16[nKeys, nQueries, 1, nBlocks] */
  readonly #mask: Tensor
  /** Distances of a block's keys from its first, f32[blockK], and of those that are scored. */
  readonly #offsets: Tensor
  readonly #samples: Tensor
  readonly #nRounds: number

  constructor(step: Step, part: StepPart, choice: Choice, blocks: Blocks) {
    const { g } = step
    const { cache, nTokens } = part
    const { nSlots, blockK, strideK } = choice
    const { nBlocks, nQueries, span } = blocks
    this.#step = step
    this.#part = part
    this.#choice = choice
    this.#blocks = blocks
    const begin = (block: number) => blocks.first() + block * nQueries
    const searched = (block: number) => nSearched(choice, begin(block))
    this.#nRounds = nRounds(searched(nBlocks - 1), nSlots)

    const perBlock = (n: number, fill: (i: number, block: number) => number) =>
      g.input(F32, [n, nBlocks], (data) => {
        for (let block = 0; block < nBlocks; block++) for (let i = 0; i < n; i++) data[block * n + i] = fill(i, block)
      })
    this.#starts = perBlock(nSlots, (i, block) => slotStart(i, searched(block), nSlots))
    this.#lengths = perBlock(nSlots, (i, block) => {
      const n = searched(block)
      return slotStart(i + 1, n, nSlots) - slotStart(i, n, nSlots)
    })
    const nWindow = choice.window + span - 1 + blockK - 1
    // Ranks that no row has yet are masked; any row stands for them.
    const lastRank = () => cache.rows.nRows + nTokens - 1
    this.#window = perBlock(nWindow, (i, block) => Math.min(searched(block) * blockK + i, lastRank()))
    const nKeys = nSlots * blockK + nWindow
    this.#mask = g.input(F16, [nKeys, nQueries, 1, nBlocks], (mask) => {
      blocks.filled?.()
      mask.fill(F16_MINUS_INFINITY)
      for (let block = 0; block < nBlocks; block++) {
        const n = searched(block)
        for (let i = 0; i < nQueries; i++) {
          const query = nTokens === 1 ? cache.rows.nRows : begin(block) + i
          const nSeen = part.isStrict && query > 0 ? query : query + 1
          const row = (block * nQueries + i) * nKeys
          mask.fill(0, row, row + Math.min(n, nSlots) * blockK)
          mask.fill(0, row + nSlots * blockK, row + nSlots * blockK + nSeen - n * blockK)
        }
      }
    })
    this.#offsets = g.input(F32, [blockK], (data) => data.forEach((_, i) => (data[i] = i)))
    this.#samples = g.input(F32, [choice.nSampled], (data) => data.forEach((_, i) => (data[i] = (i + 1) * strideK - 1)))
  }

  /** Lists per KV head. */
  get #nLists(): number {
    return this.#blocks.nBlocks * this.#choice.nLists
  }

  /** Row numbers of all ranks, where they differ: i32[nRead, G]. */
  order(il: number): Tensor | null {
    if (this.#blocks.isIdentity) return null
    const { cache, nRead } = this.#part
    const maps = cache.layers[il]!.rows
    return this.#step.g.input(I32, [nRead, maps.length], (data) => {
      for (const [head, map] of maps.entries()) {
        for (let rank = 0; rank < nRead; rank++) {
          const ahead = Math.min(rank - map.nRows, this.#part.nTokens - 1)
          data[head * nRead + rank] = ahead < 0 ? map.row(rank) : map.nextRow(ahead)
        }
      }
    })
  }

  /** The chosen blocks for queries f32[d, H, nBlocks · nQueries]: f32[nSlots, L], ascending. */
  search(kept: Kept, q: Tensor, order: Tensor | null): Tensor {
    const { g } = this.#step
    const choice = this.#choice
    return searchTree(g, choice, {
      q: this.#voters(q),
      starts: this.#perList(this.#starts),
      lengths: this.#perList(this.#lengths),
      nRounds: this.#nRounds,
      keysOf: (blocks) => this.#sampledKeys(kept, blocks, order),
    })
  }

  /** Attention of queries f32[d, H, nBlocks · nQueries] over the listed blocks f32[nSlots, L] and the window. */
  attend(kept: Kept, q: Tensor, list: Tensor, order: Tensor | null): Tensor {
    const { g, shape } = this.#step
    const { headDim: d, nHead: H } = shape
    const { nBlocks, nQueries } = this.#blocks
    const { k, v } = this.#gather(kept, list, order)
    // One slice of flash attention per query block; for KV heads' lists the query heads of a group share keys.
    const perBlock = (x: Tensor) => {
      const [, m, nL, G] = x.ne
      return g.permute(g.reshape(x, d, m, nBlocks, (nL * G) / nBlocks), 0, 1, 3, 2)
    }
    const queries = g.permute(g.reshape(q, d, H, nQueries, nBlocks), 0, 2, 1, 3)
    const o = g.flashAttnExt(queries, perBlock(k), perBlock(v), this.#mask, 1 / Math.sqrt(d))
    return g.reshape(o, d * H, nQueries * nBlocks)
  }

  /** The same for a single query, with its probabilities over all rows if they are wanted. */
  attendOne(kept: Kept, list: Tensor, order: Tensor | null, needsProbabilities: boolean): ReadResult {
    if (!needsProbabilities) return { o: this.attend(kept, kept.q, list, order), p: null }
    const { g, shape } = this.#step
    const { headDim: d, nHead: H, nHeadKv: G } = shape
    const { k, v, rows } = this.#gather(kept, list, order)
    const [, m, nL] = k.ne
    const R = H / G / nL
    const scores = g.reshape(g.mulMat(k, g.reshape(kept.q, d, R, nL, G)), m, H / G, G)
    const p = g.permute(g.reshape(softmax(this.#step, scores, this.#mask, 1), m, R, nL, G), 1, 0, 2, 3)
    const o = g.reshape(g.outProd(g.cast(v, F32), p), d * H)
    return { o, p: { values: this.#scatter(p, rows), index: null } }
  }

  /** Keys and values of the listed blocks and the window, `[d, m, nL, G]` as they are stored, and the rows they came from, i32[m, nL, G]. */
  #gather(kept: Kept, list: Tensor, order: Tensor | null): { k: Tensor; v: Tensor; rows: Tensor } {
    const { g, shape } = this.#step
    const chosen = expand(g, list, this.#choice.blockK, this.#offsets)
    const ranks = g.concat(chosen, this.#perList(this.#window), 0)
    const rows = this.#rows(ranks, order)
    const [m, nL, G] = [ranks.ne[0], this.#nLists, shape.nHeadKv]
    const take = (x: Tensor) => g.reshape(g.getRowsAsStored(x, rows), shape.headDim, m, nL, G)
    return { k: take(kept.k), v: take(kept.v.rows(g, kept.nRead)), rows: g.reshape(rows, m, nL, G) }
  }

  /** Probabilities f32[R, m, nL, G] at `rows` as f32[nRead, g, G] over all rows; masked keys go to a row that is left out. */
  #scatter(p: Tensor, rows: Tensor): Tensor {
    const { g } = this.#step
    const { nRead } = this.#part
    const [R, m, nL, G] = p.ne
    const seen = g.input(F32, [m], (data) => this.#eachMasked((i, isMasked) => (data[i] = isMasked ? 0 : 1)))
    const aside = g.input(F32, [m], (data) => this.#eachMasked((i, isMasked) => (data[i] = isMasked ? nRead : 0)))
    const index = toIndex(g, g.add(g.mul(g.cast(rows, F32), seen), aside), m, nL, G)
    const none = g.input(F32, [1], (data) => data.fill(0))
    const all = g.setRows(g.repeat(none, R, nRead + 1, nL, G), g.cont(p), index)
    const kept = g.view(all, [R, nRead, nL, G], [all.nb[1], all.nb[2], all.nb[3]])
    return g.reshape(g.cont(g.permute(kept, 1, 0, 2, 3)), nRead, R * nL, G)
  }

  #eachMasked(visit: (i: number, isMasked: boolean) => void): void {
    const { blockK, nSlots } = this.#choice
    const first = this.#blocks.first()
    const n = nSearched(this.#choice, first)
    const nWindow = this.#window.ne[0]
    for (let i = 0; i < nSlots * blockK; i++) visit(i, i >= n * blockK)
    for (let i = 0; i < nWindow; i++) visit(nSlots * blockK + i, n * blockK + i > this.#part.cache.rows.nRows)
  }

  /** Rows of ranks f32[m, L]: i32[m · nL, G]. */
  #rows(ranks: Tensor, order: Tensor | null): Tensor {
    const { g, shape } = this.#step
    const ne = [ranks.ne[0] * this.#nLists, shape.nHeadKv] as const
    const index = toIndex(g, ranks, ...ne)
    return order === null ? index : g.reshape(g.getRows(g.reshape(order, 1, ...order.ne.slice(0, 2)), index), ...ne)
  }

  /** Keys of blocks f32[n, L] that are scored, as they are stored: `[d, n · nSampled, nL, G]`. */
  #sampledKeys({ k, nRead }: Kept, blocks: Tensor, order: Tensor | null): Tensor {
    const { g, shape } = this.#step
    const { headDim: d, nHeadKv: G } = shape
    const { blockK, nSampled } = this.#choice
    const ne = [d, blocks.ne[0] * nSampled, this.#nLists, G] as const
    if (order === null && nSampled === blockK && k.nb[1] === elementBytes(k.type) * d) {
      // Whole blocks lie together, and are read as one long row each.
      const whole = g.view(k, [d * blockK, Math.floor(nRead / blockK), G, 1], [k.nb[1] * blockK, k.nb[2], k.nb[3]])
      return g.reshape(g.getRowsAsStored(whole, this.#rows(blocks, null)), ...ne)
    }
    return g.reshape(g.getRowsAsStored(k, this.#rows(expand(g, blocks, blockK, this.#samples), order)), ...ne)
  }

  /** f32[n, nBlocks], the same for all heads: f32[n, L]. */
  #perList(x: Tensor): Tensor {
    const { g, shape } = this.#step
    const [n, nBlocks] = x.ne
    const L = this.#nLists * shape.nHeadKv
    return L === nBlocks ? x : g.reshape(g.repeat(x, n, nBlocks, L / nBlocks), n, L)
  }

  /** Of queries f32[d, H, nBlocks · nQueries], those that vote: f32[d, R, nL, G]. */
  #voters(q: Tensor): Tensor {
    const { g, shape } = this.#step
    const { headDim: d, nHead: H, nHeadKv: G } = shape
    const { nBlocks, nQueries } = this.#blocks
    const strideQ = Math.min(this.#choice.strideQ, nQueries)
    const R = Math.floor(nQueries / strideQ)
    const width = (d * H) / G
    const all = g.reshape(q, width, G, nQueries, nBlocks)
    const sampled = g.view(all, [width, G, R, nBlocks], [all.nb[1], all.nb[2] * strideQ, all.nb[3]], all.nb[2] * (strideQ - 1))
    const byHead = g.cont(g.permute(sampled, 0, 3, 1, 2)) // [d · g, R, nBlocks, G]
    if (this.#choice.nLists === 1) return g.reshape(byHead, d, (R * H) / G, nBlocks, G)
    const split = g.reshape(byHead, d, H / G, R * nBlocks, G)
    return g.reshape(g.cont(g.permute(split, 0, 2, 1, 3)), d, R, (nBlocks * H) / G, G)
  }
}
