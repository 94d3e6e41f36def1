/**
 * The order in which a text is learnt: cut into windows that touch, in a new order and from a new place in every pass over it.
 * Everything follows from the seed and the number of a window, so a run goes on where it was with no state but that number.
 */
import { random } from '../core/random.ts'

export interface WindowOptions {
  /** Tokens that are predicted; a window has one more. */
  readonly nTokens: number
  readonly seed: number
  /** A token that stands first in every window, or null. */
  readonly bos: number | null
}

export class Windows {
  /** Of a pass over the text. */
  readonly nWindows: number
  readonly #tokens: Int32Array
  readonly #options: WindowOptions
  #pass = -1
  #starts: readonly number[] = []

  /** Needs more than `nTokens` tokens. */
  constructor(tokens: Int32Array, options: WindowOptions) {
    this.#tokens = tokens
    this.#options = options
    const most = Math.floor((tokens.length - 1) / options.nTokens)
    this.nWindows = Math.max(1, most - 1) // the rest is room to begin elsewhere
  }

  /** Window `i` of all passes: nTokens + 1 tokens. */
  at(i: number): Int32Array {
    const { nTokens, bos } = this.#options
    const pass = Math.floor(i / this.nWindows)
    if (pass !== this.#pass) this.#starts = this.#order(pass)
    this.#pass = pass
    const start = this.#starts[i % this.nWindows]!
    if (bos === null) return this.#tokens.subarray(start, start + nTokens + 1)
    return Int32Array.of(bos, ...this.#tokens.subarray(start, start + nTokens))
  }

  /** Where the windows of a pass begin. */
  #order(pass: number): number[] {
    const { nTokens, seed } = this.#options
    const next = random(seed + (pass + 1) * 2 ** 32)
    const room = this.#tokens.length - 1 - this.nWindows * nTokens
    const first = Math.floor(next() * (room + 1))
    const starts = Array.from({ length: this.nWindows }, (_, i) => first + i * nTokens)
    for (let i = starts.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1))
      ;[starts[i], starts[j]] = [starts[j]!, starts[i]!]
    }
    return starts
  }
}
