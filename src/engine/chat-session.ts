/** A conversation with a model: remembers what was said, streams what is answered. */
import { KvasirError } from '../core/errors.ts'
import type { ChatMessage } from '../text/chat-template.ts'
import type { AnswerOptions, Completion, GenerateOptions, Piece } from './generate-options.ts'

export interface ChatOptions extends AnswerOptions {
  /** Text of a system message that stands before all others. */
  readonly system?: string | undefined
}

type Answer = AsyncGenerator<Piece, Completion, undefined>

export class Chat {
  readonly #generate: (options: GenerateOptions) => Answer
  readonly #options: AnswerOptions
  #messages: ChatMessage[] = []
  #isAnswering = false

  /** `options` hold for every answer; {@link Chat.send} may override them for one. */
  constructor(generate: (options: GenerateOptions) => Answer, { system, ...options }: ChatOptions = {}) {
    this.#generate = generate
    this.#options = options
    this.system = system
  }

  /** The system message; a change counts from the next message on. */
  system: string | undefined

  /** All that was said, the system message first. */
  get messages(): readonly ChatMessage[] {
    return this.system === undefined ? this.#messages : [{ role: 'system', content: this.system }, ...this.#messages]
  }

  /** Forgets what was said; the system message stays. */
  clear(): void {
    this.#messages = []
  }

  /**
   * Says `text` and streams the answer. An answer that was stopped stays in the history as far as it came; a message that
   * failed (too long, …) leaves no trace.
   */
  async *send(text: string, options: AnswerOptions = {}): Answer {
    if (this.#isAnswering) throw new KvasirError('invalid_request', { reason: 'the answer before is still being written' })
    const history = this.#messages
    let answer = ''
    this.#isAnswering = true
    this.#messages = [...history, { role: 'user', content: text }]
    try {
      const pieces = this.#generate({ ...this.#options, ...options, messages: this.messages })
      try {
        for (;;) {
          const next = await pieces.next()
          if (next.done) return next.value
          answer += next.value.text
          yield next.value
        }
      } finally {
        await pieces.return(undefined as never)
        this.#messages = [...this.#messages, { role: 'assistant', content: answer }]
      }
    } catch (error) {
      this.#messages = history
      throw error
    } finally {
      this.#isAnswering = false
    }
  }
}
