/**
 * All that the attention of one sequence remembers: keys and values and what methods store beside them, which row holds which
 * position, and what methods noted (`memo`). Its address space is reserved for the whole context at the start and taken page by
 * page as tokens come; disposing it gives everything back at once.
 */
import type { Pointer } from '../ggml/bindings.ts'
import { KvBuffer } from './buffer.ts'
import { type CacheLayout, CAPACITY_STEP, roundUp, storeBytes, type StoreLayout } from './layout.ts'
import { RowMap } from './rows.ts'
import { type CacheState, type Memo, restoreCache, saveCache, type Sink, type Source } from './saved.ts'
import { Store } from './store.ts'

/** The stores that a layer reads, by name. */
export interface LayerStores {
  /** Keys and values; whoever asks for what the layer does not store gets an error. */
  readonly k: Store
  readonly v: Store
  readonly stores: { readonly [name: string]: Store }
  /** False if the layer reads the rows of another: these are then here too. */
  readonly isOwner: boolean
}

/** And the row map of each KV head; a layer that stores no values takes no rows. */
export interface CacheLayer extends LayerStores {
  readonly rows: readonly RowMap[]
}

let nextId = 1

export class KvCache implements Disposable {
  /** Distinguishes caches, and states between which tensors moved, in the keys of reusable graphs. */
  id: number = nextId++
  readonly layout: CacheLayout
  /** Rows there is room for in every layer. */
  readonly capacity: number
  readonly layers: readonly CacheLayer[]
  /** The layers that hold rows of their own, with their numbers. */
  readonly owned: readonly (readonly [number, CacheLayer])[]
  /** The row map of the first layer and head that have one: how many tokens were seen is the same in all of them. */
  readonly rows: RowMap
  memo: Memo = {}
  /** Every store once, with the rows it holds. */
  readonly #held: readonly { readonly store: Store; readonly rows: readonly RowMap[] }[]
  readonly #buffer: KvBuffer

  /** Room for `nRows` tokens at once in every layer. Errors: `out_of_memory`. */
  constructor(layout: CacheLayout, nRows: number) {
    const capacity = roundUp(nRows, CAPACITY_STEP)
    const stores = layout.layers.flatMap((layer) => Object.values(layer))
    const bytes = stores.reduce((sum, store) => sum + storeBytes(store, capacity), 0)
    this.layout = layout
    this.capacity = capacity
    // Each store is described once, and again when it has given heads back.
    this.#buffer = new KvBuffer(bytes, 2 * stores.length, `a cache of ${nRows} tokens`)
    let offset = 0
    const place = (store: StoreLayout): Store => {
      const made = new Store(store, capacity, { buffer: this.#buffer, offset })
      offset += storeBytes(store, capacity)
      return made
    }
    const own = layout.layers.map((layer) => {
      const placed = Object.fromEntries(Object.entries(layer).map(([name, store]) => [name, place(store)]))
      return { stores: placed, rows: Array.from({ length: layer['v']?.nHead ?? 0 }, () => new RowMap()) }
    })
    this.layers = own.map(({ stores }, il) => {
      const source = own[layout.kvSource?.[il] ?? il]!
      return cacheLayer({ ...source.stores, ...stores }, source.rows, source === own[il])
    })
    this.owned = [...this.layers.entries()].filter(([, { rows, isOwner }]) => isOwner && rows.length > 0)
    this.rows = this.owned[0]![1].rows[0]!
    this.#held = own.flatMap(({ stores }, il) => Object.values(stores).map((store) => ({ store, rows: this.layers[il]!.rows })))
  }

  /** First byte of the reserved address space, and its size. */
  get address(): Pointer {
    return this.#buffer.address
  }

  get addressBytes(): number {
    return this.#buffer.bytes
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
    if (this.#buffer.isDisposed) return 0
    return this.#held.reduce((sum, { store, rows }) => sum + store.bytesHeld(rows[0]?.highWater ?? 0), 0)
  }

  /** `n` more tokens are stored in every layer. */
  append(n: number): void {
    for (const [, { rows, stores }] of this.owned) {
      for (const map of rows) map.append(n)
      for (const store of Object.values(stores)) store.filledTo(rows[0]!.highWater)
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
      store.discardFrom(rows[0]!.highWater)
    }
  }

  /** Keeps of a store the rows of these heads (ascending), which become its heads 0, 1, …; the others' memory is given back. */
  keepHeads(il: number, name: string, heads: readonly number[]): void {
    const { stores, rows } = this.layers[il]!
    storeOf(stores, name).keepHeads(heads, rows[0]?.highWater ?? 0)
    this.id = nextId++
  }

  /** Forgets all but the first `n` tokens and gives their pages back. What methods noted is theirs to cut: Attention.truncate. */
  truncate(n: number): void {
    for (const [, { stores, rows }] of this.owned) {
      for (const map of rows) map.truncate(n)
      for (const store of Object.values(stores)) store.discardFrom(n)
    }
  }

  /** A cache of its own that goes on from here exactly as this one would. Errors: `out_of_memory`. */
  fork(): KvCache {
    return this.#made((made) => {
      const into = made.#become(this.#state)
      for (const [i, bytes] of this.#used().entries()) into[i]!.set(bytes)
      return made
    })
  }

  /** Writes all there is, for {@link restore}. */
  async save(to: Sink): Promise<void> {
    await saveCache(to, this.layout, this.#state, this.#used())
  }

  /** A cache that goes on as the saved one would, with the room of this one. Errors: `cache_invalid`, `out_of_memory`. */
  async restore(from: Source): Promise<KvCache> {
    return await this.#made(async (made) => {
      await restoreCache(from, this.layout, (state) => made.#become(state))
      return made
    })
  }

  #made<T extends KvCache | Promise<KvCache>>(fill: (made: KvCache) => T): T {
    const made = new KvCache(this.layout, this.capacity)
    const dispose = (error: unknown): never => {
      made[Symbol.dispose]()
      throw error
    }
    try {
      const filled = fill(made)
      return filled instanceof Promise ? (filled.catch(dispose) as T) : filled
    } catch (error) {
      return dispose(error)
    }
  }

  get #state(): CacheState {
    return {
      memo: structuredClone(this.memo),
      heads: this.#held.map(({ store }) => store.layout.nHead),
      rows: this.layers.map(({ rows, isOwner }) => (isOwner ? rows.map(({ state }) => state) : [])),
    }
  }

  /** Pieces of memory that hold all there is, in a fixed order for a state. */
  #used(): Uint8Array[] {
    return this.#held.flatMap(({ store, rows }) => store.used(rows[0]?.highWater ?? 0))
  }

  /** Takes the books over; gives the memory that is to be filled. */
  #become({ memo, heads, rows }: CacheState): Uint8Array[] {
    this.memo = structuredClone(memo)
    for (const [il, { rows: maps }] of this.layers.entries()) {
      for (const [head, state] of rows[il]!.entries()) maps[head]!.state = state
    }
    this.checkIntegrity()
    for (const [i, { store }] of this.#held.entries()) {
      if (heads[i]! < store.layout.nHead)
        store.keepHeads(
          Array.from({ length: heads[i]! }, (_, head) => head),
          0,
        )
    }
    return this.#used()
  }

  /** Throws when the books do not agree with themselves. */
  checkIntegrity(): void {
    for (const [, { rows }] of this.owned) {
      for (const map of rows) {
        map.checkIntegrity()
        if (map.nSeen !== this.nTokens) throw new Error('layers disagree on how many tokens they have seen')
        if (map.highWater !== rows[0]!.highWater) throw new Error('heads of a layer hold different numbers of rows')
        if (map.highWater > this.capacity) throw new Error(`${map.highWater} rows in a cache of ${this.capacity}`)
      }
    }
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]()
  }
}

export function storeOf(stores: LayerStores['stores'], name: string): Store {
  const store = stores[name]
  if (store === undefined) throw new Error(`a layer that stores ${Object.keys(stores).join(', ') || 'nothing'} has no ${name}`)
  return store
}

function cacheLayer(stores: LayerStores['stores'], rows: readonly RowMap[], isOwner: boolean): CacheLayer {
  return {
    stores,
    rows,
    isOwner,
    get k() {
      return storeOf(stores, 'k')
    },
    get v() {
      return storeOf(stores, 'v')
    },
  }
}
