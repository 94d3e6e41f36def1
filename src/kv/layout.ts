/**
 * What a cache stores per layer, and how many bytes that is.
 *
 * Two orders of storage, per KV head:
 * - `rows`: one row of `width` elements per token, `[width, capacity, nHead]`. Gathering and flash attention want this.
 * - `transposed`: tiles of {@link TILE} tokens, each transposed, `[TILE, width, capacity / TILE, nHead]`. A product over
 *   tokens (probabilities · V) reads these directly, twice as fast as flash attention reads rows for a single query; and a
 *   tile is one contiguous piece, so the cache still grows by pages.
 */
import { PAGE_BYTES } from '../ggml/memory.ts'
import { rowBytes } from '../ggml/types.ts'

/**
 * Tokens per tile, in which a channel is one run in memory. Shorter runs are read more slowly (products over 32,768 tokens take
 * 2.0, 1.6 and 1.3 ms with 512, 1,024 and 2,048), longer ones take memory in larger steps.
 */
export const TILE = 1024

export interface StoreLayout {
  /** Elements per token and head. */
  readonly width: number
  readonly nHead: number
  /** ggml type of the elements. */
  readonly type: number
  readonly order: 'rows' | 'transposed'
  /** Rows that do not grow with the tokens: what a method remembers besides them. */
  readonly fixed?: number
  /** It belongs to the layer that reads, not to the keys: a layer that reads another's keys has its own. */
  readonly ofReader?: true
}

/** `k` and `v`, and under other names what a method adds. A layer may lack any of them. */
export interface LayerLayout {
  readonly [name: string]: StoreLayout
}

export interface CacheLayout {
  readonly layers: readonly LayerLayout[]
  /** Entry i is the layer whose rows layer i reads; left out, every layer reads its own. */
  readonly kvSource?: readonly number[]
}

/** Bytes that one token adds, all layers together. */
export function bytesPerToken(layout: Pick<CacheLayout, 'layers'>): number {
  return sum(layout, (s) => (s.fixed === undefined ? rowBytes(s.type, s.width) * s.nHead : 0))
}

/** Resident bytes of a whole cache that holds `nTokens` in every layer. */
export function residentTotal(layout: Pick<CacheLayout, 'layers'>, nTokens: number): number {
  return sum(layout, (s) => residentBytes(s, nTokens))
}

/** Capacities are multiples of this, so that every head's rows of 4 bytes and more end with a page and heads share none. */
export const CAPACITY_STEP: number = PAGE_BYTES / 4

/** Bytes of address space for `capacity` tokens (a multiple of {@link CAPACITY_STEP}). */
export function storeBytes(s: StoreLayout, capacity: number): number {
  return roundUp(rowBytes(s.type, s.width) * (s.fixed ?? capacity) * s.nHead, PAGE_BYTES)
}

/** Resident bytes with `nRows` tokens: pages are taken whole, per head, and tiles are written across. */
export function residentBytes(s: StoreLayout, nRows: number): number {
  if (nRows === 0) return 0
  if (s.fixed !== undefined) return storeBytes(s, 0)
  return headBytes(s, nRows) * s.nHead
}

/** Resident bytes of one head. */
export function headBytes(s: StoreLayout, nRows: number): number {
  return roundUp(rowBytes(s.type, s.width) * (s.order === 'transposed' ? roundUp(nRows, TILE) : nRows), PAGE_BYTES)
}

export function roundUp(n: number, multiple: number): number {
  return Math.ceil(n / multiple) * multiple
}

function sum({ layers }: Pick<CacheLayout, 'layers'>, of: (store: StoreLayout) => number): number {
  return layers.reduce((total, layer) => total + Object.values(layer).reduce((bytes, store) => bytes + of(store), 0), 0)
}
