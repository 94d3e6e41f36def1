/** What one side pushes, the other iterates. Leaving the iteration early calls `onLeave`. */
export class Channel<T> implements AsyncIterableIterator<T> {
  readonly #items: T[] = []
  readonly #onLeave: () => void
  #waiting: PromiseWithResolver<IteratorResult<T>> | null = null
  #error: unknown = null
  #closed = false

  constructor(onLeave: () => void) {
    this.#onLeave = onLeave
  }

  push(item: T): void {
    if (this.#closed) return
    if (this.#waiting) this.#settle({ value: item, done: false })
    else this.#items.push(item)
  }

  /** No more items; with `error`, the iteration throws it once the pushed items are read. */
  close(error: unknown = null): void {
    if (this.#closed) return
    this.#closed = true
    this.#error = error
    const waiting = this.#waiting
    if (!waiting) return
    this.#waiting = null
    if (error === null) waiting.resolve({ value: undefined, done: true })
    else waiting.reject(this.#takeError())
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#items.length > 0) return Promise.resolve({ value: this.#items.shift()!, done: false })
    if (this.#error !== null) return Promise.reject(this.#takeError())
    if (this.#closed) return Promise.resolve({ value: undefined, done: true })
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }))
  }

  return(): Promise<IteratorResult<T>> {
    this.#items.length = 0
    this.close()
    this.#onLeave()
    return Promise.resolve({ value: undefined, done: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  #settle(result: IteratorResult<T>): void {
    this.#waiting?.resolve(result)
    this.#waiting = null
  }

  #takeError(): unknown {
    const error = this.#error
    this.#error = null
    return error
  }
}

interface PromiseWithResolver<T> {
  readonly resolve: (value: T) => void
  readonly reject: (reason: unknown) => void
}
