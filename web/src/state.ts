/** What the page knows. Signals only: who changes them is `conversation.ts`, `server.ts` and the form that shows them. */
import { computed, type Signal, signal } from '@preact/signals'
import type { AttentionUsage, MethodSetting } from '../../src/core/request.ts'
import type { ChatMessage, ServerInfo } from './api.ts'
import { NO_METHODS, settingFrom } from './method.ts'
import type { Failure } from './failure.ts'
import { type Sampling, samplingFrom } from './sampling.ts'
import { recall } from './storage.ts'

/** A text that is put in front of a question. */
export interface Attachment {
  readonly id: number
  readonly name: string
  readonly text: string
  readonly bytes: number
  /** Null until the server has counted. */
  readonly tokens: Signal<number | null>
}

export type Phase =
  | { readonly kind: 'waiting'; readonly note: string | null }
  | { readonly kind: 'reading'; readonly processed: number; readonly total: number; readonly ms: number }
  | { readonly kind: 'writing' }
  | { readonly kind: 'done'; readonly reason: string }
  | { readonly kind: 'failed'; readonly failure: Failure }

/** What an answer cost so far: the page's own clock while it is written, the server's numbers afterwards. */
export interface Cost {
  readonly promptTokens: number | null
  readonly cachedTokens: number
  readonly promptMs: number | null
  readonly answerTokens: number
  readonly tokensPerSecond: number | null
  /** From the click to the first text. */
  readonly firstTextMs: number | null
  readonly attention: AttentionUsage | null
}

export const NO_COST: Cost = {
  promptTokens: null,
  cachedTokens: 0,
  promptMs: null,
  answerTokens: 0,
  tokensPerSecond: null,
  firstTextMs: null,
  attention: null,
}

/** One question and its answer. */
export interface Exchange {
  readonly id: number
  readonly question: string
  readonly attachments: readonly Attachment[]
  readonly answer: Signal<string>
  readonly phase: Signal<Phase>
  readonly cost: Signal<Cost>
}

export type Server =
  | { readonly kind: 'connecting' | 'loading' | 'unreachable' | 'locked' }
  | ({ readonly kind: 'ready' } & ServerInfo)

export const server = signal<Server>({ kind: 'connecting' })
/** Resident bytes of all caches, while an answer is made. */
export const liveBytes = signal<number | null>(null)

export const exchanges = signal<readonly Exchange[]>([])
/** Why the question is back in the composer. */
export const notice = signal<Failure | null>(null)
/** Stops the answer that is being made. */
export const running = signal<AbortController | null>(null)

export const draft = signal('')
export const draftTokens = signal<number | null>(null)
export const attachments = signal<readonly Attachment[]>([])

export const sampling = signal<Sampling>(samplingFrom(recall('sampling')))
/** As it was stored: what another server or version left is sorted out when there is a server to ask. */
export const storedAttention = signal<unknown>(recall('attention'))
export const systemPrompt = signal(textFrom(recall('system')))
export const apiKey = signal(textFrom(recall('key')))
/** On a narrow screen the panel lies over the conversation, so the page does not begin with it. */
export const panelOpen = signal(recall('panel') === true && !matchMedia('(max-width: 60rem)').matches)

function textFrom(stored: unknown): string {
  return typeof stored === 'string' ? stored : ''
}

export const methods = computed(() => (server.value.kind === 'ready' ? server.value.methods : NO_METHODS))
/** What the reader has chosen; null leaves it to the server. */
export const attention = computed(() => {
  const stored = storedAttention.value
  if (server.value.kind === 'ready') return settingFrom(stored, methods.value.all)
  return Array.isArray(stored) ? (stored as MethodSetting[]) : null // the server will say what it thinks of it
})

export const nCtx = computed(() => (server.value.kind === 'ready' ? server.value.nCtx : null))

/** Tokens of the conversation as far as the model has read and written it. */
export const usedTokens = computed(() => {
  const last = exchanges.value.at(-1)
  if (last?.phase.value.kind === 'reading') return last.phase.value.processed
  const cost = exchanges.value.map((exchange) => exchange.cost.value).findLast(({ promptTokens }) => promptTokens !== null)
  return cost ? cost.promptTokens! + cost.answerTokens : 0
})

/** Tokens that wait in the composer, as far as they are counted. */
export const waitingTokens = computed(() =>
  attachments.value.reduce((sum, attachment) => sum + (attachment.tokens.value ?? 0), draftTokens.value ?? 0),
)

/** Texts stand in front of the question, each with one line break behind it. */
export function questionText({ attachments, question }: Pick<Exchange, 'attachments' | 'question'>): string {
  return [...attachments.map(({ text }) => text.replace(/[\r\n]+$/, '')), question].join('\n')
}

/** The messages up to and including `last`, whose answer is asked for. */
export function messagesUpTo(last: Exchange): ChatMessage[] {
  const messages: ChatMessage[] = systemPrompt.value.trim() ? [{ role: 'system', content: systemPrompt.value }] : []
  for (const exchange of exchanges.value) {
    messages.push({ role: 'user', content: questionText(exchange) })
    if (exchange.id === last.id) break
    messages.push({ role: 'assistant', content: exchange.answer.value })
  }
  return messages
}
