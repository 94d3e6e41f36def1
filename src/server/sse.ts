/** Server-sent events: `data: {…}` per value, comments while nothing happens, `data: [DONE]` at the end. */
import { log } from '../core/log.ts'
import type { AppContext } from './context.ts'
import { asKvasirError, errorBody } from './error-body.ts'

/** Sends one value; resolves when the client can take more. */
export type Send = (value: unknown) => Promise<void>

/** Events that may wait for a slow client before `send` does. */
const HIGH_WATER = 16

export interface EventStreamOptions {
  /** Produces the events. What it throws becomes the last event, `{"error": …}`. */
  readonly run: (send: Send) => Promise<void>
  /** The client has gone. */
  readonly onLeave: () => void
}

export function eventStream(c: AppContext, { run, onLeave }: EventStreamOptions): Response {
  const encoder = new TextEncoder()
  let waiting: (() => void)[] = []
  let isOpen = true

  function wake(): void {
    for (const resume of waiting) resume()
    waiting = []
  }

  async function produce(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    const isFull = (): boolean => (controller.desiredSize ?? 0) <= 0
    const ping = setTimeout(() => {
      if (!isFull()) controller.enqueue(encoder.encode(': still here\n\n'))
      ping.refresh()
    }, c.var.pingMs)
    const write = async (data: string): Promise<void> => {
      if (!isOpen) return
      controller.enqueue(encoder.encode(`data: ${data}\n\n`))
      ping.refresh()
      if (isFull()) await new Promise<void>((resume) => waiting.push(resume))
    }
    try {
      await run((value) => write(JSON.stringify(value)))
      await write('[DONE]')
    } catch (thrown) {
      if (!isOpen) return
      const error = asKvasirError(thrown)
      if (error.status === 500) log.error(`while streaming: ${error.message}`)
      await write(JSON.stringify(errorBody(error)))
    } finally {
      clearTimeout(ping)
      if (isOpen) controller.close()
      isOpen = false
    }
  }

  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        void produce(controller)
      },
      pull: wake,
      cancel() {
        isOpen = false
        wake()
        onLeave()
      },
    },
    { highWaterMark: HIGH_WATER },
  )
  return c.body(body, 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    'x-accel-buffering': 'no',
  })
}
