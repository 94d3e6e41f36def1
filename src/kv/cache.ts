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

/** The stores that a layer reads, by name, and the row map of each KV head; a layer that stores no values takes no rows. */
export interface CacheLayer {
  /** Keys and values; whoever asks for what the layer does not store gets an error. */
  readonly k: Store
  readonly v: Store
  readonly stores: { readonly [name: string]: Store }
  readonly rows: readonly RowMap[]
  /** False if the layer reads the rows of another: these are then here too. */
  readonly isOwner: boolean
}

export function storeOf({ stores }: Pick<CacheLayer, 'stores'>, name: string): Store {
  const store = stores[name]
  if (store === undefined) throw new Error(`a layer that stores ${Object.keys(stores).join(', ') || 'nothing'} has no ${name}`)
  return store
}

function cacheLayer(layer: Pick<CacheLayer, 'stores' | 'rows' | 'isOwner'>): CacheLayer {
  return {
    ...layer,
    get k() {
      return storeOf(layer, 'k')
    },
    get v() {
      return storeOf(layer, 'v')
    },
  }
}

export class SequenceCache implements Disposable {
  /** Distinguishes caches in the keys of reusable graphs. */
  readonly id: number = nextId++
  /** Rows there is room for in every layer. */
  readonly capacity: number
  readonly layers: readonly CacheLayer[]
  /** The layers that hold rows of their own, with their numbers. */
  readonly owned: readonly (readonly [number, CacheLayer])[]
  /** The row map of the first layer and head that have one: how many tokens were seen is the same in all of them. */
  readonly rows: RowMap
  /** Keys read so far and what dense attention would have read, summed over layers and KV heads; written by the runner. */
  keysRead = 0
  keysDense = 0
  /** How often tokens were forgotten: what a method remembers of an earlier state then no longer holds. */
  nTruncated = 0
  /** Every store once, with the rows it holds. */
  readonly #held: readonly { readonly store: Store; readonly rows: readonly RowMap[] }[]
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
    // Each store is described once, and again when it has given heads back.
    const descriptions = 2 * stores.length * api.ggml_tensor_overhead()
    const context = api.ggml_init({ mem_size: descriptions, mem_buffer: null, no_alloc: true })
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
    const own = layout.layers.map((layer) => {
      const stores = Object.fromEntries(Object.entries(layer).map(([name, store]) => [name, place(store)]))
      return { stores, rows: Array.from({ length: layer['v']?.nHead ?? 0 }, () => new RowMap()) }
    })
    this.layers = own.map(({ stores }, il) => {
      const owner = own[layout.reads?.[il] ?? il]!
      return cacheLayer({ stores: { ...owner.stores, ...stores }, rows: owner.rows, isOwner: owner === own[il] })
    })
    this.owned = [...this.layers.entries()].filter(([, { rows, isOwner }]) => isOwner && rows.length > 0)
    this.rows = this.owned[0]![1].rows[0]!
    this.#held = own.flatMap(({ stores }, il) => Object.values(stores).map((store) => ({ store, rows: this.layers[il]!.rows })))
  }

  /** First byte of the reserved address space. */
  get address(): Pointer {
    return this.#memory.at
  }

  /** Bytes of it. */
  get addressBytes(): number {
    return this.#memory.bytes
  }

  /** Tokens seen so far; the position of the next one. */
  get nTokens(): number {
    return this.rows.nSeen
  }

  /** True while nothing was dropped: row i is position i in every layer and head. */
  get isWhole(): boolean {
    return this.owned.every(([, { rows }]) => rows.every((map) => map.isIdentity))
  }

  /** Resident bytes of all stores. */
  get bytesHeld(): number {
    if (this.#disposed) return 0
    return this.#held.reduce((sum, { store, rows }) => sum + store.bytesHeld(rows[0]?.nHigh ?? 0), 0)
  }

  /** `n` more tokens are stored in every layer. */
  append(n: number): void {
    for (const [, { rows, stores }] of this.owned) {
      for (const map of rows) map.append(n)
      for (const store of Object.values(stores)) store.filledTo(rows[0]!.nHigh)
    }
  }

  /** Keeps of a layer, per head, the rows with these ranks by position; the rest is dropped and its pages given back. */
  keep(il: number, ranks: readonly ArrayLike<number>[]): void {
    const { stores, rows } = this.layers[il]!
    const moved = rows.map((map, head) => map.keep(ranks[head]!))
    for (const store of Object.values(stores)) {
      if (store.layout.fixed !== undefined) continue
      // Stores of other numbers of heads are for methods whose heads keep the same rows.
      for (let head = 0; head < store.layout.nHead; head++) store.compact(head, moved[head] ?? moved[0]!)
      store.discardFrom(rows[0]!.nHigh)
    }
  }

  /** Forgets all but the first `n` tokens and gives their pages back. */
  truncate(n: number): void {
    this.nTruncated++
    for (const [, { stores, rows }] of this.owned) {
      for (const map of rows) map.truncate(n)
      for (const store of Object.values(stores)) store.discardFrom(n)
    }
  }

  /** Throws when the books do not agree with themselves. */
  checkIntegrity(): void {
    for (const [, { rows }] of this.owned) {
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
