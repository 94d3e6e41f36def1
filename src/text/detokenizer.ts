/** Bytes of tokens, as they come → text. A token may end in the middle of a character; its bytes wait for the next one. */
export class Detokenizer {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  /** Whole characters only. Bytes that can be no part of a character become U+FFFD. */
  push(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true })
  }

  /** The rest: U+FFFD where a character was left unfinished. The detokenizer is as new afterwards. */
  flush(): string {
    return this.#decoder.decode()
  }
}
