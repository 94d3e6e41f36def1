/** Reads a file's header from front to back through a window, so that neither its size nor a lie in it costs memory. */
import type { ModelFile } from './model-file.ts'

const WINDOW_BYTES = 1 << 16

export class Cursor {
  readonly file: ModelFile
  /** Where the next value starts in the file. */
  offset = 0
  readonly #end: number
  readonly #limit: number
  #window: Buffer = Buffer.alloc(0)
  #view: DataView = new DataView(new ArrayBuffer(0))
  #windowStart = 0

  /** Reading beyond `limit` bytes or the end of the file is an error. */
  constructor(file: ModelFile, limit: number) {
    this.file = file
    this.#limit = limit
    this.#end = Math.min(file.size, limit)
  }

  /** Steps over `n` bytes; the result is where they start. */
  skip(n: number): number {
    const start = this.offset
    if (n > this.#end - start) {
      if (this.#end === this.#limit) this.file.unsupported(`its header is larger than ${this.#limit} bytes`)
      this.file.fail(`it ends inside its header (${n} bytes are missing at byte ${start} of ${this.#end})`)
    }
    this.offset = start + n
    return start
  }

  number(size: number, get: (view: DataView, at: number) => number | boolean): number | boolean {
    const at = this.#take(size)
    return get(this.#view, at)
  }

  u32(): number {
    const at = this.#take(4)
    return this.#view.getUint32(at, true)
  }

  /** Exact up to 2^53; larger values stay larger than any file. */
  u64(): number {
    const at = this.#take(8)
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32
  }

  string(): string {
    const length = this.u64()
    const at = this.#take(length)
    return this.#window.toString('utf8', at, at + length)
  }

  /** Steps over `n` bytes and gives their place in the window, which may become another one. */
  #take(n: number): number {
    const start = this.skip(n)
    if (this.offset > this.#windowStart + this.#window.length) {
      this.#window = this.file.read(start, Math.min(Math.max(n, WINDOW_BYTES), this.#end - start))
      this.#view = new DataView(this.#window.buffer, this.#window.byteOffset, this.#window.length)
      this.#windowStart = start
    }
    return start - this.#windowStart
  }
}
