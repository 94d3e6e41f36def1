/**
 * The keys and values of one sequence. Its address space is reserved for the whole context at the start and taken page by
 * page as tokens come; disposing it gives everything back at once.
 */
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'
import { Reservation } from '../ggml/memory.ts'
import { KvasirError } from '../core/errors.ts'
import { type CacheLayout, CAPACITY_STEP, roundUp, storeBytes, type StoreLayout } from './layout.ts'
import { RowMap } from './rows.ts'
import { Store } from './store.ts'

let nextId = 1

/** One layer's stores by name, and the row map of each KV head. */
export interface CacheLayer {
  readonly k: Store
  readonly v: Store
  readonly stores: { readonly [name: string]: Store }
  readonly rows: readonly RowMap[]
}

export class SequenceCache implements Disposable {
  /** Distinguishes caches in the keys of reusable graphs. */
  readonly id: number = nextId++
  /** Rows there is room for in every layer. */
  readonly capacity: number
  readonly layers: readonly CacheLayer[]
  /** Keys read so far and what dense attention would have read, summed over layers and KV heads; written by the runner. */
  keysRead = 0
  keysDense = 0
  /** How often tokens were forgotten: what a method remembers of an earlier state then no longer holds. */
  nTruncated = 0
  readonly #memory: Reservation
  readonly #buffer: Pointer
  readonly #context: Pointer
  #disposed = false

  /** Room for `nRows` tokens at once in every layer. */
  constructor(layout: CacheLayout, nRows: number) {
    const api = ggml()
    const capacity = roundUp(nRows, CAPACITY_STEP)
    const stores = layout.layers.flatMap((layer) => Object.values(layer))
    const bytes = stores.reduce((sum, store) => sum + storeBytes(store, capacity), 0)
    this.capacity = capacity
    this.#memory = new Reservation(bytes, `a cache of ${nRows} tokens`)
    const context = api.ggml_init({ mem_size: stores.length * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
    const buffer = api.ggml_backend_cpu_buffer_from_ptr(this.#memory.at, this.#memory.bytes)
    if (context === null || buffer === null) throw new KvasirError('out_of_memory', { bytes, what: 'a cache' })
    this.#context = context
    this.#buffer = buffer
    let offset = 0
    const place = (store: StoreLayout): Store => {
      const made = new Store(store, capacity, { context, buffer, memory: this.#memory, offset })
      offset += storeBytes(store, capacity)
      return made
    }
    this.layers = layout.layers.map((layer) => {
      const placed = Object.fromEntries(Object.entries(layer).map(([name, store]) => [name, place(store)]))
      const rows = Array.from({ length: layer.k.nHead }, () => new RowMap())
      return { k: placed['k']!, v: placed['v']!, stores: placed, rows }
    })
  }

  /** First byte of the reserved address space. */
  get address(): Pointer {
    return this.#memory.at
  }

  /** Bytes of it. */
  get addressBytes(): number {
    return this.#memory.bytes
  }

  /** The row map of the first layer and head: how many tokens were seen is the same in all of them. */
  get rows(): RowMap {
    return this.layers[0]!.rows[0]!
  }

  /** Tokens seen so far; the position of the next one. */
  get nTokens(): number {
    return this.rows.nSeen
  }

  /** True while nothing was dropped: row i is position i in every layer and head. */
  get isWhole(): boolean {
    return this.layers.every(({ rows }) => rows.every((map) => map.isIdentity))
  }

  /** Resident bytes of all stores. */
  get bytesHeld(): number {
    if (this.#disposed) return 0
    const layerBytes = ({ stores, rows }: CacheLayer) =>
      Object.values(stores).reduce((sum, store) => sum + store.bytesHeld(rows[0]!.nHigh), 0)
    return this.layers.reduce((sum, layer) => sum + layerBytes(layer), 0)
  }

  /** `n` more tokens are stored in every layer. */
  append(n: number): void {
    for (const { rows, stores } of this.layers) {
      for (const map of rows) map.append(n)
      for (const store of Object.values(stores)) store.filledTo(rows[0]!.nHigh)
    }
  }

  /** Keeps of a layer, per head, the rows with these ranks by position; the rest is dropped and its pages given back. */
  keep(il: number, ranks: readonly ArrayLike<number>[]): void {
    const { stores, rows } = this.layers[il]!
    for (const [head, map] of rows.entries()) {
      const from = map.keep(ranks[head]!)
      for (const store of Object.values(stores)) if (store.layout.fixed === undefined) store.compact(head, from)
    }
    for (const store of Object.values(stores)) store.discardFrom(rows[0]!.nHigh)
  }

  /** Forgets all but the first `n` tokens and gives their pages back. */
  truncate(n: number): void {
    this.nTruncated++
    for (const { stores, rows } of this.layers) {
      for (const map of rows) map.truncate(n)
      for (const store of Object.values(stores)) store.discardFrom(n)
    }
  }

  /** Throws when the books do not agree with themselves. */
  checkIntegrity(): void {
    for (const { rows } of this.layers) {
      for (const map of rows) {
        map.checkIntegrity()
        if (map.nSeen !== this.nTokens) throw new Error('layers disagree on how many tokens they have seen')
        if (map.nHigh !== rows[0]!.nHigh) throw new Error('heads of a layer hold different numbers of rows')
        if (map.nHigh > this.capacity) throw new Error(`${map.nHigh} rows in a cache of ${this.capacity}`)
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return
    this.#disposed = true
    ggml().ggml_backend_buffer_free(this.#buffer)
    ggml().ggml_free(this.#context)
    this.#memory[Symbol.dispose]()
  }
}
