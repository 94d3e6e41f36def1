/**
 * What a cache stores per layer, and how many bytes that is.
 *
 * Two orders of storage, per KV head:
 * - `rows`: one row of `width` elements per token, `[width, capacity, nHead]`. Gathering and flash attention want this.
 * - `columns`: tiles of {@link TILE} tokens, each transposed, `[TILE, width, capacity / TILE, nHead]`. A product over
 *   tokens (probabilities · V) reads these directly, twice as fast as flash attention reads rows for a single query; and a
 *   tile is one contiguous piece, so the cache still grows by pages.
 */
import { PAGE_BYTES } from '../ggml/memory.ts'
import { rowBytes } from '../ggml/types.ts'

/**
 * Tokens per tile: a channel of a tile is one run in memory. Shorter runs are read more slowly (products over 4,096 tokens
 * take 344, 284 and 222 µs with 256, 512 and 1,024), longer ones take memory in larger steps.
 */
export const TILE = 512

/** Reads are rounded up to this many tokens, so a decode graph serves as many steps; tiles are whole multiples of it. */
export const READ_STEP = 256

export interface StoreLayout {
  /** Elements per token and head. */
  readonly width: number
  readonly nHead: number
  /** ggml type of the elements. */
  readonly type: number
  readonly order: 'rows' | 'columns'
}

export interface LayerLayout {
  readonly k: StoreLayout
  readonly v: StoreLayout
}

export interface CacheLayout {
  readonly layers: readonly LayerLayout[]
}

/** Bytes that one token adds, all layers together. */
export function bytesPerToken(layout: CacheLayout): number {
  const store = (s: StoreLayout) => rowBytes(s.type, s.width) * s.nHead
  return layout.layers.reduce((sum, { k, v }) => sum + store(k) + store(v), 0)
}

/** Bytes of address space one head needs for `capacity` tokens: whole pages, so that heads do not share any. */
export function headBytes(s: StoreLayout, capacity: number): number {
  return roundUp(rowBytes(s.type, s.width) * capacity, PAGE_BYTES)
}

/** Resident bytes of one head that holds `nRows` tokens: pages are taken whole, tiles are written across. */
export function residentBytes(s: StoreLayout, nRows: number): number {
  return headBytes(s, s.order === 'columns' ? roundUp(nRows, TILE) : nRows)
}

/** Resident bytes of a whole cache that holds `nTokens` in every layer. */
export function residentTotal(layout: CacheLayout, nTokens: number): number {
  const store = (s: StoreLayout) => residentBytes(s, nTokens) * s.nHead
  return layout.layers.reduce((sum, { k, v }) => sum + store(k) + store(v), 0)
}

export function roundUp(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple
}
