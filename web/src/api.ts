/** The server's endpoints as functions. Every one throws `ServerError` for an error reply and `TypeError` when nothing answers. */
import type { Timings, Usage } from '../../src/core/request.ts'
import type { ChatBody } from '../../src/server/schema.ts'
import { BrokenStream, ServerError } from './failure.ts'
import { type Methods, NO_METHODS } from './method.ts'
import { sseEvents } from './sse.ts'

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export type ChatRequest = Omit<ChatBody, 'stream' | 'stream_options' | 'return_progress'>

/** What a chat stream brings, in order: `progress`*, `text`*, then `end` and `cost` in either order. */
export type ChatEvent =
  | { readonly kind: 'progress'; readonly processed: number; readonly total: number; readonly ms: number }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'end'; readonly reason: string }
  | { readonly kind: 'cost'; readonly usage?: Usage; readonly timings?: Timings }

export interface ServerInfo {
  readonly model: string
  readonly nCtx: number | null
  /** The sampling a request gets when it asks for none. */
  readonly defaults: Readonly<Record<string, unknown>>
  readonly methods: Methods
}

interface Props {
  readonly default_generation_settings?: { readonly n_ctx?: number; readonly params?: Readonly<Record<string, unknown>> }
  readonly attention_methods?: Methods['all']
  readonly attention_axes?: Methods['questions']
  readonly attention_default?: Methods['byDefault']
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null }; readonly finish_reason?: string | null }[]
  readonly prompt_progress?: { readonly processed: number; readonly total: number; readonly time_ms: number }
  readonly usage?: Usage | null
  readonly timings?: Timings
  readonly error?: Readonly<Record<string, unknown>>
}

interface Call {
  readonly key: string
  readonly body?: unknown
  readonly signal?: AbortSignal | undefined
}

async function call(path: string, { key, body, signal }: Call): Promise<Response> {
  const headers: Record<string, string> = {}
  if (key) headers.authorization = `Bearer ${key}`
  if (body !== undefined) headers['content-type'] = 'application/json'
  const init: RequestInit = { headers, signal: signal ?? null, cache: 'no-store' }
  const response = await fetch(path, body === undefined ? init : { ...init, method: 'POST', body: JSON.stringify(body) })
  if (response.ok) return response
  const reply = (await response.json().catch(() => ({}))) as { error?: Readonly<Record<string, unknown>> }
  throw new ServerError(response.status, reply.error ?? {})
}

/** Throws while the model is loading (status 503). */
export async function serverInfo(key: string): Promise<ServerInfo> {
  await call('/health', { key })
  const models = (await (await call('/v1/models', { key })).json()) as { data?: readonly { id?: string }[] }
  const props = (await (await call('/props', { key })).json()) as Props
  const defaults = props.default_generation_settings
  return {
    model: models.data?.[0]?.id ?? 'model',
    nCtx: defaults?.n_ctx ?? null,
    defaults: defaults?.params ?? {},
    methods: {
      all: props.attention_methods ?? NO_METHODS.all,
      questions: props.attention_axes ?? NO_METHODS.questions,
      byDefault: props.attention_default ?? NO_METHODS.byDefault,
    },
  }
}

export async function countTokens(content: string, options: Omit<Call, 'body'>): Promise<number> {
  const response = await call('/tokenize', { ...options, body: { content } })
  return ((await response.json()) as { tokens: readonly unknown[] }).tokens.length
}

/** Resident bytes of all caches now; null where the server does not say. */
export async function cacheBytes(key: string): Promise<number | null> {
  const text = await (await call('/metrics', { key })).text()
  const values = [...text.matchAll(/^kvasir_kv_cache_bytes(?:\{[^}]*\})? (\S+)/gm)].map((match) => Number(match[1]))
  return values.length > 0 ? values.reduce((sum, value) => sum + value, 0) : null
}

export async function* streamChat(request: ChatRequest, options: Omit<Call, 'body'>): AsyncGenerator<ChatEvent, void, undefined> {
  const body: ChatBody = { ...request, stream: true, stream_options: { include_usage: true }, return_progress: true }
  const response = await call('/v1/chat/completions', { ...options, body })
  try {
    for await (const data of sseEvents(response.body!)) {
      if (data === '[DONE]') return
      yield* eventsOf(JSON.parse(data) as Chunk)
    }
  } catch (error) {
    if (error instanceof ServerError || (error instanceof DOMException && error.name === 'AbortError')) throw error
    throw new BrokenStream('', { cause: error })
  }
  throw new BrokenStream()
}

function* eventsOf({ error, choices, prompt_progress: progress, usage, timings }: Chunk): Generator<ChatEvent, void, undefined> {
  if (error) throw new ServerError(Number(error.code) || 500, error)
  if (progress) yield { kind: 'progress', processed: progress.processed, total: progress.total, ms: progress.time_ms }
  const choice = choices?.[0]
  if (choice?.delta?.content) yield { kind: 'text', text: choice.delta.content }
  if (choice?.finish_reason) yield { kind: 'end', reason: choice.finish_reason }
  if (usage || timings) yield { kind: 'cost', ...(usage && { usage }), ...(timings && { timings }) }
}
