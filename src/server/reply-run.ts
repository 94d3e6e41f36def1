/** Runs the requests of one reply together, until they end or the client leaves. */
import { KvasirError } from '../core/errors.ts'
import type { GenerateEvent, GenerateRequest, GenerateResult } from '../core/request.ts'
import type { AppContext } from './context.ts'

export type OnEvent = (index: number, event: GenerateEvent) => void | Promise<void>

export interface Run {
  /** Calls `onEvent` with the events of all requests as they come, those of one request in order; then all results. */
  readonly each: (onEvent: OnEvent) => Promise<GenerateResult[]>
  /** Gives everything back at once. */
  readonly stop: () => void
}

/** Submits all requests, or none: throws what the engine throws, before anything has been answered. */
export function startRun(c: AppContext, requests: readonly GenerateRequest[]): Run {
  const { engine, metrics, closing } = c.var
  const client = c.req.raw.signal
  const stopping = new AbortController()
  const stop = (): void => stopping.abort()
  for (const signal of [client, closing]) {
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
  }
  const release = (): void => {
    for (const signal of [client, closing]) signal.removeEventListener('abort', stop)
  }

  /** Why an answer ended early: nobody wants it any more, or the engine is being closed. */
  const early = (): KvasirError => new KvasirError(client.aborted ? 'aborted' : 'closed')
  const answers: AsyncIterableIterator<GenerateEvent>[] = []
  try {
    if (stopping.signal.aborted) throw early()
    for (const request of requests) answers.push(engine.submit({ ...request, signal: stopping.signal }))
  } catch (error) {
    stop()
    release()
    for (const answer of answers) void answer.return?.()
    throw error
  }

  async function drive(index: number, onEvent: OnEvent): Promise<GenerateResult> {
    let last = 0
    for await (const event of answers[index]!) {
      if (event.kind === 'done' && event.result.stopReason === 'aborted') throw early()
      if (event.kind === 'token') {
        const now = performance.now()
        if (last > 0) metrics.tokenInterval((now - last) / 1000)
        last = now
      }
      await onEvent(index, event)
      if (event.kind === 'done') return event.result
    }
    throw early()
  }

  return {
    stop,
    async each(onEvent) {
      try {
        return await Promise.all(answers.map((_, index) => drive(index, onEvent)))
      } catch (error) {
        stop()
        throw error
      } finally {
        release()
      }
    },
  }
}
