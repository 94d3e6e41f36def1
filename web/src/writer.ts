/** Writes what the stream brings into an exchange, once per frame of the screen: a small model answers faster than it can be drawn. */
import { batch } from '@preact/signals'
import type { ChatEvent } from './api.ts'
import type { Exchange } from './state.ts'

export class Writer {
  readonly #exchange: Exchange
  readonly #begin = performance.now()
  #text = ''
  #nPieces = 0
  #msFirst = 0
  #frame = 0

  constructor(exchange: Exchange) {
    this.#exchange = exchange
  }

  take(event: ChatEvent): void {
    const { phase, cost } = this.#exchange
    if (event.kind === 'progress') {
      phase.value = { ...event, kind: 'reading' }
      cost.value = { ...cost.value, promptTokens: event.total, promptMs: event.ms }
    } else if (event.kind === 'text') this.#write(event.text)
    else if (event.kind === 'end') {
      this.flush()
      phase.value = { kind: 'done', reason: event.reason }
    } else this.#settle(event)
  }

  /** Shows what has come so far. */
  flush(): void {
    cancelAnimationFrame(this.#frame)
    this.#frame = 0
    if (this.#text === '') return
    const { answer, phase, cost } = this.#exchange
    const seconds = (performance.now() - this.#begin - this.#msFirst) / 1000
    batch(() => {
      answer.value += this.#text
      phase.value = { kind: 'writing' }
      cost.value = {
        ...cost.value,
        // One piece is one token, but for characters and stop strings that were held back.
        answerTokens: this.#nPieces,
        tokensPerSecond: this.#nPieces > 1 && seconds > 0 ? (this.#nPieces - 1) / seconds : null,
        firstTextMs: this.#msFirst,
      }
    })
    this.#text = ''
  }

  #write(text: string): void {
    if (this.#nPieces === 0) this.#msFirst = performance.now() - this.#begin
    this.#nPieces++
    this.#text += text
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.flush())
  }

  #settle({ usage, timings }: Extract<ChatEvent, { kind: 'cost' }>): void {
    this.flush()
    const { cost } = this.#exchange
    cost.value = {
      ...cost.value,
      ...(timings && { promptMs: timings.prompt_ms, tokensPerSecond: timings.predicted_per_second }),
      ...(usage && {
        promptTokens: usage.prompt_tokens,
        cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
        answerTokens: usage.completion_tokens,
        attention: usage.attention ?? null,
      }),
    }
  }
}
