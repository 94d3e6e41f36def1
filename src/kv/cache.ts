/**
 * The keys and values of one sequence. Its address space is reserved for the whole context at the start and taken page by
 * page as tokens come; disposing it gives everything back at once.
 */
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'
import { Reservation } from '../ggml/memory.ts'
import { KvasirError } from '../core/errors.ts'
import { type CacheLayout, roundUp, TILE } from './layout.ts'
import { RowMap } from './rows.ts'
import { Store } from './store.ts'

let nextId = 1

export class SequenceCache implements Disposable {
  /** Distinguishes caches in the keys of reusable graphs. */
  readonly id: number = nextId++
  /** Positions this cache can hold. */
  readonly nCtx: number
  readonly layers: readonly { readonly k: Store; readonly v: Store; readonly rows: RowMap }[]
  /** Keys read so far and what dense attention would have read, per layer and KV head; written by the runner. */
  keysRead = 0
  keysDense = 0
  readonly #memory: Reservation
  readonly #buffer: Pointer
  readonly #context: Pointer
  #disposed = false

  constructor(layout: CacheLayout, nCtx: number) {
    const api = ggml()
    const capacity = roundUp(nCtx, TILE)
    const stores = layout.layers.flatMap(({ k, v }) => [k, v])
    const bytes = stores.reduce((sum, store) => sum + Store.bytes(store, capacity), 0)
    this.nCtx = nCtx
    this.#memory = new Reservation(bytes, `a context of ${nCtx} tokens`)
    const context = api.ggml_init({ mem_size: stores.length * api.ggml_tensor_overhead(), mem_buffer: null, no_alloc: true })
    const buffer = api.ggml_backend_cpu_buffer_from_ptr(this.#memory.at, this.#memory.bytes)
    if (context === null || buffer === null) throw new KvasirError('out_of_memory', { bytes, what: 'a cache' })
    this.#context = context
    this.#buffer = buffer
    let offset = 0
    const place = (store: (typeof stores)[number]): Store => {
      const made = new Store(store, capacity, { context, buffer, memory: this.#memory, offset })
      offset += Store.bytes(store, capacity)
      return made
    }
    this.layers = layout.layers.map(({ k, v }) => ({ k: place(k), v: place(v), rows: new RowMap() }))
  }

  /** First byte of the reserved address space. */
  get address(): Pointer {
    return this.#memory.at
  }

  /** Tokens seen so far; the position of the next one. */
  get nTokens(): number {
    return this.layers[0]!.rows.nSeen
  }

  /** Resident bytes of keys and values. */
  get bytesHeld(): number {
    if (this.#disposed) return 0
    return this.layers.reduce((sum, { k, v, rows }) => sum + k.bytesHeld(rows.nRows) + v.bytesHeld(rows.nRows), 0)
  }

  /** `n` more tokens are stored in every layer. */
  append(n: number): void {
    for (const { rows } of this.layers) rows.append(n)
  }

  /** Forgets all but the first `n` tokens and gives their pages back. */
  truncate(n: number): void {
    for (const { k, v, rows } of this.layers) {
      rows.truncate(n)
      k.discardFrom(n)
      v.discardFrom(n)
    }
  }

  /** Throws when the books do not agree with themselves. */
  checkIntegrity(): void {
    for (const { k, rows } of this.layers) {
      rows.checkIntegrity()
      if (rows.nSeen !== this.nTokens) throw new Error('layers disagree on how many tokens they have seen')
      if (rows.nRows > k.capacity) throw new Error(`${rows.nRows} rows in a cache of ${k.capacity}`)
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
