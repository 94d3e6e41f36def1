/** From a checked body and encoded prompts to requests of the engine, and from its events to a reply. */
import { randomUUID } from 'node:crypto'
import type { BoundAttention, GenerateRequest, TokenLogprob } from '../core/request.ts'
import { buildInfo } from './build-info.ts'
import type { AppContext } from './context.ts'
import { invalid } from './error-body.ts'
import { type Format, NOTHING } from './format.ts'
import { type Run, startRun } from './reply-run.ts'
import { toSampling } from './body-sampling.ts'
import type { GenerationBody } from './schema.ts'
import { eventStream } from './sse.ts'
import { streamChunks } from './stream.ts'
import { combineTimings, combineUsage } from './usage.ts'

/** What a request may have of the engine. */
export interface Allowed {
  /** Tokens, prompt and answer; Infinity where its attention goes on for ever. */
  readonly nCtx: number
  readonly attention: BoundAttention
}

/** Throws for a context larger than the server's, and for an attention that cannot be. */
export function allowedTo(c: AppContext, body: GenerationBody): Allowed {
  const { nCtx } = c.var.engine
  if (body.num_ctx !== undefined && body.num_ctx > nCtx)
    throw invalid('num_ctx', `${body.num_ctx} is more than the server's context of ${nCtx} (-c)`)
  const attention = c.var.engine.bind(body.attention, 'stranger')
  return { nCtx: attention.mostSeen(Math.min(nCtx, body.num_ctx ?? Infinity)), attention }
}

export interface RequestOptions {
  readonly body: GenerationBody
  readonly attention: BoundAttention
  readonly prompts: readonly Int32Array[]
  readonly topLogprobs: number
  readonly promptLogprobs: boolean
  /** Ends an answer besides the body's own: where the next turn of a chat would begin. */
  readonly stop?: readonly string[]
}

/** `n` choices for each prompt, in the order of the prompts. */
export function toRequests(
  c: AppContext,
  { body, attention, prompts, topLogprobs, promptLogprobs, stop = [] }: RequestOptions,
): GenerateRequest[] {
  const sampling = toSampling(c.var.engine, body)
  const shared = {
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? body.n_predict ?? -1,
    stop: [...(typeof body.stop === 'string' ? [body.stop] : body.stop), ...stop],
    topLogprobs,
    promptLogprobs,
    ignoreEos: body.ignore_eos,
    nCtx: body.num_ctx,
    attention,
  }
  return prompts.flatMap((prompt) => Array.from({ length: body.n }, (_, i) => ({ ...shared, prompt, sampling: sampling(i) })))
}

/** Answers with one JSON object, or with a stream of chunks. */
export async function answer(
  c: AppContext,
  body: GenerationBody,
  requests: GenerateRequest[],
  format: Format,
): Promise<Response> {
  const run = startRun(c, requests)
  const reply = {
    id: `${format.idPrefix}-${randomUUID().replaceAll('-', '')}`,
    object: body.stream ? format.chunkObject : format.object,
    created: Math.floor(Date.now() / 1000),
    model: c.var.engine.name,
    system_fingerprint: buildInfo,
  }
  if (!body.stream) return c.json({ ...reply, ...(await collect(run, body.n, format)) })
  return eventStream(c, {
    run: (send) => streamChunks(run, { body, requests, format, send: (rest) => send({ ...reply, ...rest }) }),
    onLeave: run.stop,
  })
}

async function collect(run: Run, n: number, format: Format): Promise<object> {
  const parts: { text: string; logprobs: TokenLogprob[]; promptLogprobs: readonly (TokenLogprob | null)[] }[] = []
  const results = await run.each((index, event) => {
    const part = (parts[index] ??= { text: '', logprobs: [], promptLogprobs: [] })
    if (event.kind === 'prompt') part.promptLogprobs = event.logprobs
    if (event.kind === 'token' || event.kind === 'done') part.text += event.text
    if (event.kind === 'token' && event.logprob) part.logprobs.push(event.logprob)
  })
  const choices = results.map((result, index) => format.whole(index, parts[index] ?? NOTHING, result.stopReason))
  return { choices, usage: combineUsage(results, n), timings: combineTimings(results) }
}
