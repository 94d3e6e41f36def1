/** The inputs of some query blocks that are computed together: one set for all layers of a step. */
import { F16, F32 } from '../../../ggml/types.ts'
import type { Tensor } from '../../../ggml/tensor.ts'
import type { KvCache } from '../../../kv/cache.ts'
import type { Visibility } from '../../../core/shape.ts'
import type { Chunk } from '../../chunk.ts'
import { MASKED, visiblePositions } from '../../kernels/mask.ts'
import { type Choice, nSearched } from './choice.ts'
import { slotStart } from './tree-search.ts'

/** Query blocks computed together. */
export interface Blocks {
  readonly nBlocks: number
  /** Queries per block. */
  readonly nQueries: number
  /** Tokens that share a window: a query block, or what is decoded between two searches. */
  readonly span: number
  /** Rank at which the first block begins. */
  readonly first: (cache: KvCache) => number
  /** Rounds in which the last one is searched. */
  readonly nRounds: number
}

export class BlockInputs {
  readonly chunk: Chunk
  readonly choice: Choice
  readonly blocks: Blocks
  /** Slots at the beginning of a search, f32[nSlots, nBlocks]. */
  readonly starts: Tensor
  readonly lengths: Tensor
  /** Ranks of the window's keys, f32[nWindow, nBlocks]. */
  readonly window: Tensor
  /** Distances of a block's keys from its first, f32[blockK], and of those that are scored. */
  readonly offsets: Tensor
  readonly samples: Tensor
  readonly #masks = new Map<Visibility, Tensor>()
  #aside: { readonly factor: Tensor; readonly row: Tensor } | null = null

  constructor(chunk: Chunk, choice: Choice, blocks: Blocks) {
    const { nSlots, blockK, strideK, nSampled, window } = choice
    this.chunk = chunk
    this.choice = choice
    this.blocks = blocks
    const slotsBefore = (i: number, block: number, cache: KvCache) => slotStart(i, this.#searched(block, cache), nSlots)
    this.starts = this.#perBlock(nSlots, slotsBefore)
    this.lengths = this.#perBlock(nSlots, (i, ...at) => slotsBefore(i + 1, ...at) - slotsBefore(i, ...at))
    // Ranks that no row has yet are masked; any row stands for them.
    const lastRank = ({ rows }: KvCache) => rows.nRows + chunk.nTokens - 1
    this.window = this.#perBlock(window + blocks.span - 1 + blockK - 1, (i, block, cache) =>
      Math.min(this.#searched(block, cache) * blockK + i, lastRank(cache)),
    )
    const each = (n: number, of: (i: number) => number) =>
      chunk.input(F32, [n], (data) => data.forEach((_, i) => (data[i] = of(i))))
    this.offsets = each(blockK, (i) => i)
    this.samples = each(nSampled, (i) => (i + 1) * strideK - 1)
  }

  /** f16[nKeys, nQueries, 1, nBlocks] over the listed keys and those of the window. */
  mask(visible: Visibility): Tensor {
    const made = this.#masks.get(visible) ?? this.#makeMask(visible)
    this.#masks.set(visible, made)
    return made
  }

  #makeMask(visible: Visibility): Tensor {
    const { nBlocks, nQueries } = this.blocks
    const { nSlots, blockK } = this.choice
    const { nTokens } = this.chunk
    const nKeys = nSlots * blockK + this.window.ne[0]
    return this.chunk.input(F16, [nKeys, nQueries, 1, nBlocks], (mask, cache) => {
      mask.fill(MASKED)
      for (let block = 0; block < nBlocks; block++) {
        const n = this.#searched(block, cache)
        for (let i = 0; i < nQueries; i++) {
          const query = nTokens === 1 ? cache.rows.nRows : this.#begin(block, cache) + i
          const [, nSeen] = visiblePositions(visible, query)
          const row = (block * nQueries + i) * nKeys
          mask.fill(0, row, row + Math.min(n, nSlots) * blockK)
          mask.fill(0, row + nSlots * blockK, row + nSlots * blockK + nSeen - n * blockK)
        }
      }
    })
  }

  /**
   * Where the probabilities of a single query go that are masked: to a row behind all others. Factor 0 and that row for masked
   * keys, 1 and 0 for the others: f32[nKeys].
   */
  get aside(): { readonly factor: Tensor; readonly row: Tensor } {
    const { nSlots, blockK } = this.choice
    const nListed = nSlots * blockK
    const perKey = (masked: number, seen: number) =>
      this.chunk.input(F32, [nListed + this.window.ne[0]], (data, cache) => {
        const n = this.#searched(0, cache) * blockK
        data.forEach((_, i) => {
          const isMasked = i < nListed ? i >= n : n + i - nListed > cache.rows.nRows
          data[i] = isMasked ? masked : seen
        })
      })
    return (this.#aside ??= { factor: perKey(0, 1), row: perKey(this.chunk.nKv, 0) })
  }

  #begin(block: number, cache: KvCache): number {
    return this.blocks.first(cache) + block * this.blocks.nQueries
  }

  #searched(block: number, cache: KvCache): number {
    return nSearched(this.choice, this.#begin(block, cache))
  }

  #perBlock(n: number, of: (i: number, block: number, cache: KvCache) => number): Tensor {
    const { nBlocks } = this.blocks
    return this.chunk.input(F32, [n, nBlocks], (data, cache) => {
      for (let block = 0; block < nBlocks; block++) for (let i = 0; i < n; i++) data[block * n + i] = of(i, block, cache)
    })
  }
}
