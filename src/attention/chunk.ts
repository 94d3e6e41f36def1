/**
 * Some tokens of one sequence in a step that is being recorded. It knows the tensors of the sequence's stores, and gives what
 * changes from step to step to inputs, which are handed the cache when they are filled; recording never sees a cache.
 */
import type { Graph, InputArray, InputType } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { KvCache, LayerStores } from '../kv/cache.ts'

/** How many tokens a chunk has, and how many rows its reads cover: those touched so far and the new ones, rounded up. */
export interface ChunkSize {
  readonly nTokens: number
  readonly nKv: number
}

/** Writes all elements of an input, before every computation. */
export type Fill<T extends InputType> = (data: InputArray<T>, cache: KvCache) => void

export interface ChunkPlace extends ChunkSize {
  /** Its number in the step, and its first column. */
  readonly index: number
  readonly first: number
  /** Of the whole step. */
  readonly positions: Tensor
  /** It is all of the step. */
  readonly isAlone: boolean
}

export class Chunk implements ChunkSize {
  readonly g: Graph
  readonly nTokens: number
  /** Rows that reads cover. */
  readonly nKv: number
  readonly isAlone: boolean
  readonly #place: ChunkPlace
  readonly #stores: readonly LayerStores[]
  readonly #cache: () => KvCache

  /** `cache` gives that of the step which is being computed. */
  constructor(g: Graph, place: ChunkPlace, stores: readonly LayerStores[], cache: () => KvCache) {
    this.g = g
    this.nTokens = place.nTokens
    this.nKv = place.nKv
    this.isAlone = place.isAlone
    this.#place = place
    this.#stores = stores
    this.#cache = cache
  }

  /** What layer `il` stores, or the layer whose rows it reads. */
  layer(il: number): LayerStores {
    return this.#stores[il]!
  }

  input<T extends InputType>(type: T, ne: readonly number[], fill: Fill<T>): Tensor {
    return this.g.input(type, ne, (data) => fill(data, this.#cache()))
  }

  /** What `make` gave when the chunk was first asked for it under `key`: several layers use the same. */
  once(key: string, make: () => Tensor): Tensor {
    return this.g.once(`${this.#place.index}:${key}`, make)
  }

  /** i32[n] */
  get positions(): Tensor {
    return this.once('positions', () => this.columns(this.#place.positions, 0))
  }

  /** Its part of what all tokens of the step have along dimension `dim`. */
  columns(x: Tensor, dim: 0 | 1 | 2): Tensor {
    if (this.isAlone) return x
    const ne = x.ne.map((size, i) => (i === dim ? this.nTokens : size)) as unknown as Tensor['ne']
    return this.g.view(x, ne, [x.nb[1], x.nb[2], x.nb[3]], this.#place.first * x.nb[dim])
  }
}
