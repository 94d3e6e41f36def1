/** What HiP chooses for a block of queries: how many keys, out of which. Keys are counted by rank: kept rows in order of position. */
import type { LayerShape } from '../../../core/shape.ts'
import type { Tree } from './tree-search.ts'

export interface Choice extends Tree {
  /** Keys per block, and the distance between those of them that are scored. */
  readonly blockK: number
  readonly strideK: number
  /** Queries of a prompt that choose together, and the distance between those of them that vote. */
  readonly blockQ: number
  readonly strideQ: number
  readonly window: number
  /** Each query head has a list of its own, not each KV head. */
  readonly isPerQueryHead: boolean
}

/** Lists of chosen blocks per KV head and query block. */
export function nListsOf({ isPerQueryHead }: Choice, { nHead, nHeadKv }: Pick<LayerShape, 'nHead' | 'nHeadKv'>): number {
  return isPerQueryHead ? nHead / nHeadKv : 1
}

/** Blocks searched for queries from rank `first` on: those wholly before the window of the first of them. */
export function nSearched({ blockK, window }: Choice, first: number): number {
  return Math.floor(Math.max(0, first + 1 - window) / blockK)
}

/** Keys in the list and in the window of one query. */
export function keysAttended(choice: Choice, first: number, query: number): number {
  const n = nSearched(choice, first)
  return Math.min(n, choice.nSlots) * choice.blockK + query + 1 - n * choice.blockK
}
