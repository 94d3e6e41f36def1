/**
 * Ends a text at the first stop string, whatever pieces it comes in. Text that might still become a stop string is held back.
 * Of several stop strings, the one that is complete first counts; of those that end together, the longest.
 */
export interface StopResult {
  /** Text that became certain: no part of any stop string. */
  readonly text: string
  /** The stop string that ended the text, or null. */
  readonly stopped: string | null
}

export class StopMatcher {
  readonly #stops: readonly string[]
  #held = ''
  #stopped: string | null = null

  /** Empty strings among `stops` are ignored. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '')
  }

  /** After a stop, all further text is swallowed. */
  push(text: string): StopResult {
    if (this.#stopped !== null) return { text: '', stopped: this.#stopped }
    const all = this.#held + text
    const match = this.#firstMatch(all)
    if (match) {
      this.#held = ''
      this.#stopped = match.stop
      return { text: all.slice(0, match.start), stopped: match.stop }
    }
    const certain = all.length - this.#lengthToHold(all)
    this.#held = all.slice(certain)
    return { text: all.slice(0, certain), stopped: null }
  }

  /** The text that was held back and did not become a stop string. */
  flush(): string {
    const held = this.#held
    this.#held = ''
    return held
  }

  #firstMatch(text: string): { readonly stop: string; readonly start: number } | null {
    let best: { stop: string; start: number } | null = null
    for (const stop of this.#stops) {
      const start = text.indexOf(stop)
      if (start < 0) continue
      const later = best === null ? -1 : start + stop.length - (best.start + best.stop.length)
      if (later < 0 || (later === 0 && start < best!.start)) best = { stop, start }
    }
    return best
  }

  /** Length of the longest end of `text` that is the beginning of a stop string. */
  #lengthToHold(text: string): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1))
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(text.length - length)
      if (this.#stops.some((stop) => stop.startsWith(end))) return length
    }
    return 0
  }
}
