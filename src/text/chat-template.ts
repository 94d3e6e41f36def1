/** Chat messages → one prompt text, as the model's own Jinja template writes it. */
import { Environment, Interpreter, Template } from '@huggingface/jinja'
import { KvasirError, reasonOf } from '../core/errors.ts'
import { log } from '../core/log.ts'
import { type ChatMessage, PLAIN_STOP, writeChatml, writePlain } from './chat-fallback.ts'
import { formatTime } from './time.ts'

export type { ChatMessage } from './chat-fallback.ts'

export interface ChatTemplateOptions {
  /** Jinja; null where the model has none. */
  readonly source: string | null
  /** Texts of the BOS and EOS tokens; empty where there are none. */
  readonly bos?: string
  readonly eos?: string
  /** Whether the vocabulary has ChatML's tokens, so that a model without a template is likely to know them. */
  readonly knowsChatml?: boolean
  readonly now?: () => Date
}

/** A template is a program: its loops must end, and a list of a thousand million numbers does not fit. */
const LONGEST_RANGE = 10_000

export class ChatTemplate {
  /** The Jinja source; null where the model has none, or none that can be read, and the plain fallback is used. */
  readonly source: string | null
  /** Texts that end an answer because no token does: the fallback's next turn. */
  readonly stop: readonly string[]
  readonly #template: Template | null
  readonly #options: ChatTemplateOptions
  /** Said once, when the fallback is first used; whoever sends raw prompts need not know. */
  #warning: string | null

  constructor(options: ChatTemplateOptions) {
    this.#options = options
    this.#warning = 'the model has no chat template'
    this.#template = options.source === null ? null : this.#parse(options.source)
    this.source = this.#template === null ? null : options.source
    this.stop = this.#template === null && !options.knowsChatml ? [PLAIN_STOP] : []
  }

  #parse(source: string): Template | null {
    try {
      return new Template(source)
    } catch (error) {
      this.#warning = `the model's chat template cannot be read (${reasonOf(error)})`
      return null
    }
  }

  /** `addGenerationPrompt` (default) ends the text where the assistant's answer begins. Errors: `chat_template_failed`. */
  render(
    messages: readonly ChatMessage[],
    { addGenerationPrompt = true }: { readonly addGenerationPrompt?: boolean } = {},
  ): string {
    if (this.#template === null) return this.#renderFallback(messages, addGenerationPrompt)
    const { bos = '', eos = '', now = () => new Date() } = this.#options
    try {
      return run(this.#template, {
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: addGenerationPrompt,
        bos_token: bos,
        eos_token: eos,
        tools: null,
        documents: null,
        range,
        strftime_now: (format: string) => formatTime(now(), format),
      })
    } catch (error) {
      throw new KvasirError('chat_template_failed', { reason: reasonOf(error) }, { cause: error })
    }
  }

  #renderFallback(messages: readonly ChatMessage[], addGenerationPrompt: boolean): string {
    const { knowsChatml = false } = this.#options
    if (this.#warning !== null) log.warn(`${this.#warning}: writing messages as ${knowsChatml ? 'ChatML' : '"User: …"'}`)
    this.#warning = null
    return (knowsChatml ? writeChatml : writePlain)(messages, addGenerationPrompt)
  }
}

/** `Template.render` with globals of our own: it declares `range` and `strftime_now` itself, and refuses to have them replaced. */
function run(template: Template, variables: Readonly<Record<string, unknown>>): string {
  const refuse = (reason: unknown): never => {
    throw new Error(String(reason))
  }
  const constants = { true: true, false: false, none: null, True: true, False: false, None: null }
  const env = new Environment()
  for (const [name, value] of Object.entries({ ...constants, raise_exception: refuse, ...variables })) env.set(name, value)
  return new Interpreter(env).run(template.parsed).value as string
}

/** Python's `range`. */
function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second]
  const length = Math.max(0, Math.ceil((stop - start) / step))
  if (!(length <= LONGEST_RANGE)) throw new Error(`range() of ${length} numbers`)
  return Array.from({ length }, (_, i) => start + i * step)
}
