/** `kvasir chat`: a conversation on the terminal; lines from a pipe work too. */
import { type Interface, createInterface } from 'node:readline'
import { z } from 'zod'
import { KvasirError } from '../core/errors.ts'
import { parseCount } from '../core/sizes.ts'
import type { Chat } from '../engine/chat-session.ts'
import { type Model, load } from '../engine/model.ts'
import { define } from './command.ts'
import { joinPrompt, readText } from './input.ts'
import { EXIT_INTERRUPTED } from './interrupt.ts'
import { LOAD_OPTIONS, SAMPLING_OPTIONS, loadOptions, samplingOf } from './model-options.ts'
import { Progress } from './progress.ts'
import { summary } from './run.ts'
import { nearest } from './suggest.ts'

const HELP = `/system TEXT   set the system message (nothing: remove it)
/file PATH     put a file's text before your next message
/clear         forget what was said
/help          this list
/exit          leave; so do Ctrl-D, and Ctrl-C at an empty prompt. Ctrl-C stops an answer.`

export const chat = define({
  name: 'chat',
  arguments: '',
  about: 'talk with a model in the terminal',
  examples: ['kvasir chat', 'kvasir chat -m model.gguf -sys "Answer in one sentence." --temp 0.3'],
  options: {
    'system-prompt': { short: 'sys', hint: 'TEXT', about: 'the system message', schema: z.string().optional() },
    'n-predict': {
      short: 'n',
      hint: 'N',
      about: 'at most N tokens per answer; -1 is until the context is full',
      convert: parseCount,
      schema: z.int().min(-1).default(-1),
    },
    ...LOAD_OPTIONS,
    ...SAMPLING_OPTIONS,
  },
  async run(values) {
    using progress = new Progress()
    await using model = await load(values.model, { ...loadOptions(values), nParallel: 1, onProgress: progress.loading })
    progress.clear()
    const conversation = model.chat({ system: values.systemPrompt, ...samplingOf(values), maxTokens: values.nPredict })
    const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true
    if (isTerminal) process.stdout.write(`${model.name}, context of ${model.nCtx} tokens. /help lists commands.\n`)
    const lines = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal: isTerminal,
      prompt: isTerminal ? '> ' : '',
    })
    await new Session(model, conversation, lines, progress).talk()
  },
})

class Session {
  readonly #model: Model
  readonly #chat: Chat
  readonly #lines: Interface
  readonly #progress: Progress
  /** Text of files that goes before the next message. */
  #file: string | undefined
  #answering: AbortController | undefined

  constructor(model: Model, conversation: Chat, lines: Interface, progress: Progress) {
    this.#model = model
    this.#chat = conversation
    this.#lines = lines
    this.#progress = progress
    lines.on('SIGINT', this.#interrupted) // from a terminal in raw mode
  }

  async talk(): Promise<void> {
    process.on('SIGINT', this.#interrupted)
    this.#lines.prompt()
    for await (const line of this.#lines) {
      if (line.trim() === '/exit') break
      try {
        if (line.startsWith('/')) await this.#command(line.trim())
        else if (line.trim() !== '' || this.#file !== undefined) await this.#answer(line)
      } catch (error) {
        if (!(error instanceof KvasirError)) throw error
        process.stderr.write(`kvasir: ${error.message}\n        ${error.remedy}\n`)
      }
      this.#lines.prompt()
    }
    this.#lines.close()
    process.off('SIGINT', this.#interrupted)
  }

  async #command(line: string): Promise<void> {
    const [name, rest] = [line.split(/\s/, 1)[0]!, line.replace(/^\S+\s*/, '')]
    if (name === '/help') this.#say(HELP)
    else if (name === '/clear') {
      this.#chat.clear()
      this.#file = undefined
    } else if (name === '/system') this.#chat.system = rest === '' ? undefined : rest
    else if (name === '/file') {
      this.#file = joinPrompt(this.#file, await readText(rest))
      this.#say(`${this.#model.countTokens(this.#file!)} tokens will go before your next message`)
    } else {
      const near = nearest(name, ['/help', '/exit', '/clear', '/system', '/file'])
      this.#say(`there is no ${name}${near === undefined ? '; /help lists commands' : `; did you mean ${near}?`}`)
    }
  }

  async #answer(line: string): Promise<void> {
    const text = joinPrompt(this.#file, line)!
    this.#answering = new AbortController()
    try {
      const pieces = this.#chat.send(text, { signal: this.#answering.signal, onProgress: this.#progress.reading })
      let next = await pieces.next()
      for (; !next.done; next = await pieces.next()) {
        this.#progress.clear()
        process.stdout.write(next.value.text)
      }
      this.#progress.clear()
      this.#file = undefined
      process.stdout.write('\n')
      if (process.stderr.isTTY) process.stderr.write(`${summary(next.value)}\n`)
    } finally {
      this.#answering = undefined
    }
  }

  /** Stops the answer, or clears the line, or leaves; a second one during an answer quits at once. */
  #interrupted = (): void => {
    if (this.#answering?.signal.aborted) process.exit(EXIT_INTERRUPTED)
    else if (this.#answering) this.#answering.abort()
    else if (this.#lines.line === '') this.#lines.close()
    else this.#lines.write(null, { ctrl: true, name: 'u' })
  }

  /** For the person only: a pipe gets answers and nothing else. */
  #say(text: string): void {
    process.stderr.write(`${text}\n`)
  }
}
