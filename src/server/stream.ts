/** The engine's events → chunks of a stream, for one choice or several side by side. */
import type { GenerateRequest, GenerateResult } from '../core/request.ts'
import { type Format, NOTHING, type Part } from './format.ts'
import type { Run } from './reply-run.ts'
import type { GenerationBody } from './schema.ts'
import { combineTimings, combineUsage } from './usage.ts'

export interface StreamOptions {
  readonly body: GenerationBody
  readonly requests: readonly GenerateRequest[]
  readonly format: Format
  /** Sends a chunk with these fields beside those that all chunks have. */
  readonly send: (fields: object) => Promise<void>
}

/** Timings stand in the last chunk: the one with `usage` where that is asked for, else the one that ends the last choice. */
export async function streamChunks(run: Run, { body, requests, format, send }: StreamOptions): Promise<void> {
  const includeUsage = body.stream_options?.include_usage ?? false
  const usage = includeUsage ? { usage: null } : {}
  const isOpen = requests.map(() => false)
  const results: GenerateResult[] = []

  async function open(index: number, part: Part): Promise<void> {
    if (isOpen[index]) return
    isOpen[index] = true
    const choice = format.open(index, part)
    if (choice) await send({ choices: [choice], ...usage })
  }

  await run.each(async (index, event) => {
    if (event.kind === 'progress') {
      if (!body.return_progress) return
      if (!requests[index]!.promptLogprobs) await open(index, NOTHING)
      const { total, processed, ms } = event
      const prompt_progress = { total, cache: 0, processed, time_ms: Math.round(ms) }
      return send({ choices: [format.piece(index, NOTHING)], ...usage, prompt_progress })
    }
    if (event.kind === 'prompt') return open(index, { ...NOTHING, promptLogprobs: event.logprobs })
    await open(index, NOTHING)
    const logprobs = event.kind === 'token' && event.logprob ? [event.logprob] : []
    if (event.text !== '' || logprobs.length > 0)
      await send({ choices: [format.piece(index, { ...NOTHING, text: event.text, logprobs })], ...usage })
    if (event.kind === 'token') return
    results[index] = event.result
    const isLast = results.filter(Boolean).length === requests.length
    const timings = isLast && !includeUsage ? { timings: combineTimings(results) } : {}
    await send({ choices: [format.close(index, event.result.stopReason)], ...usage, ...timings })
  })
  if (includeUsage) await send({ choices: [], usage: combineUsage(results, body.n), timings: combineTimings(results) })
}
