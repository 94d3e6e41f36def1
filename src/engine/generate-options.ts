/** What callers of the library write, and how it becomes the engine's request. The command line goes the same way. */
import { KvasirError } from '../core/errors.ts'
import type {
  AttentionSetting,
  BoundAttention,
  GenerateRequest,
  StopReason,
  Timings,
  TokenLogprob,
  Usage,
} from '../core/request.ts'
import { type SamplingParams, samplingSchema } from '../core/sampling.ts'
import type { ChatMessage, ChatTemplate } from '../text/chat-template.ts'
import { encodeChat } from '../text/chat-encoding.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { strangeToken } from './strange-token.ts'

/** Library names of the sampling parameters → the names they share with the server. */
const SAMPLING = {
  temperature: 'temperature',
  topK: 'top_k',
  topP: 'top_p',
  minP: 'min_p',
  repeatPenalty: 'repeat_penalty',
  repeatLastN: 'repeat_last_n',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  seed: 'seed',
  logitBias: 'logit_bias',
} as const satisfies Record<string, keyof SamplingParams>

/** Defaults and ranges are those of the server (`temperature` 0.8, `topK` 40, `topP` 0.95, `minP` 0.05, a drawn `seed`). */
export type SamplingOptions = {
  readonly [K in keyof typeof SAMPLING]?: SamplingParams[(typeof SAMPLING)[K]] | undefined
}

/** What may be set per answer, besides the prompt. */
export interface AnswerOptions extends SamplingOptions {
  /** At most this many new tokens; default -1: until the model ends or the context is full. */
  readonly maxTokens?: number | undefined
  /** Text that ends the answer; it is not part of it. */
  readonly stop?: string | readonly string[] | undefined
  /** Report log-probabilities, with this many alternatives per token. */
  readonly logprobs?: number | undefined
  /** Go on after the model's end token. */
  readonly ignoreEos?: boolean | undefined
  /** Context of this request in tokens, at most the model's. */
  readonly nCtx?: number | undefined
  /** How attention is computed for this answer, instead of as the model was loaded with; see `kvasir methods`. */
  readonly attention?: AttentionSetting | undefined
  /** Stops the answer; what was generated stays, with `stopReason: 'aborted'`. */
  readonly signal?: AbortSignal | undefined
  /** Called while a long prompt is read. */
  readonly onProgress?: ((progress: PromptProgress) => void) | undefined
}

export interface GenerateOptions extends AnswerOptions {
  /** Text taken as it is, or token ids. */
  readonly prompt?: string | ArrayLike<number> | undefined
  /** Messages, put through the model's chat template. One of `prompt` and `messages` is needed. */
  readonly messages?: readonly ChatMessage[] | undefined
}

export interface PromptProgress {
  readonly processed: number
  readonly total: number
  readonly ms: number
}

/** One step of an answer. `text` may be empty while a character or a stop string is incomplete. */
export interface Piece {
  readonly text: string
  /** Null for text that was held back until the end. */
  readonly token: number | null
  readonly logprob: TokenLogprob | null
}

/** A whole answer. */
export interface Completion {
  readonly text: string
  readonly tokens: readonly number[]
  readonly logprobs: readonly TokenLogprob[]
  readonly stopReason: StopReason
  /** The stop string that ended it, if one did. */
  readonly stoppingWord: string | null
  readonly usage: Usage
  readonly timings: Timings
}

interface Texts {
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  /** Errors: `attention_invalid`. */
  bind(setting: AttentionSetting): BoundAttention
}

/** What callers write → what the engine takes. Throws `invalid_request` with the name of the field, or `attention_invalid`. */
export function toRequest(texts: Texts, options: GenerateOptions): GenerateRequest {
  const { prompt, messages, maxTokens, stop, logprobs, ignoreEos, nCtx, attention, signal, onProgress: _, ...sampling } = options
  if ((prompt === undefined) === (messages === undefined)) throw invalid("give one of 'prompt' and 'messages'")
  return {
    prompt: messages === undefined ? encodePrompt(texts, prompt!) : encodeMessages(texts, messages),
    maxTokens: whole('maxTokens', maxTokens ?? -1, -1, Number.MAX_SAFE_INTEGER),
    stop: [...stopStrings(stop), ...(messages === undefined ? [] : texts.template.stop)],
    sampling: toSampling(sampling),
    topLogprobs: logprobs === undefined ? -1 : whole('logprobs', logprobs, 0, 20),
    promptLogprobs: false,
    ignoreEos: ignoreEos ?? false,
    nCtx: nCtx === undefined ? undefined : whole('nCtx', nCtx, 1, Number.MAX_SAFE_INTEGER),
    attention: attention === undefined ? undefined : texts.bind(attention),
    signal,
  }
}

function stopStrings(stop: string | readonly string[] = []): readonly string[] {
  const strings = typeof stop === 'string' ? [stop] : stop
  if (strings.includes('')) throw invalid("'stop' holds an empty string, which every text begins with")
  return strings
}

function toSampling(options: SamplingOptions): SamplingParams {
  const fields: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(SAMPLING, name)) throw invalid(`unknown option '${name}'`)
    fields[SAMPLING[name as keyof typeof SAMPLING]] = value
  }
  const result = samplingSchema.safeParse(fields)
  if (result.success) return result.data
  const { path, message } = result.error.issues[0]!
  const name = Object.entries(SAMPLING).find(([, field]) => field === path[0])?.[0]
  throw invalid(`${name}: ${message}`)
}

/** Raw text, with the special tokens that the vocabulary adds and those that the text names; or ids as they are. */
export function encodePrompt({ tokenizer }: Texts, prompt: string | ArrayLike<number>): Int32Array {
  const ids = typeof prompt === 'string' ? tokenizer.encode(prompt, { parseSpecial: true }) : Int32Array.from(prompt)
  if (ids.length === 0) throw invalid('the prompt is empty')
  const strange = strangeToken(ids, tokenizer.nVocab)
  if (strange !== null) throw invalid(`the prompt holds ${strange}, which is no token (0 to ${tokenizer.nVocab - 1})`)
  return ids
}

/** Messages as the model's template writes them. */
export function encodeMessages({ tokenizer, template }: Texts, messages: readonly ChatMessage[]): Int32Array {
  if (messages.length === 0) throw invalid("'messages' is empty")
  return encodeChat(tokenizer, template.render(messages, { addGenerationPrompt: true }))
}

function whole(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw invalid(`${name} must be a whole number, ${min} or more${max < 1e9 ? `, ${max} or less` : ''}`)
}

export function invalid(reason: string): KvasirError {
  return new KvasirError('invalid_request', { reason })
}
