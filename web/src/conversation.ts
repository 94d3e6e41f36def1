/** What the reader can do: ask, stop, ask again, begin anew. */
import { batch, signal } from '@preact/signals'
import { type ChatRequest, streamChat } from './api.ts'
import { type Failure, failureOf } from './failure.ts'
import { connect } from './server.ts'
import { apiKey, attachments, attention, draft, exchanges, messagesUpTo, NO_COST, notice, running, sampling } from './state.ts'
import type { Exchange } from './state.ts'
import { Writer } from './writer.ts'

const MS_BETWEEN_TRIES = 1000

let nextId = 1

export function ask(): void {
  const question = draft.value.trim()
  if (running.value || question === '') return
  const exchange: Exchange = {
    id: nextId++,
    question,
    attachments: attachments.value,
    answer: signal(''),
    phase: signal({ kind: 'waiting', note: null }),
    cost: signal(NO_COST),
  }
  batch(() => {
    exchanges.value = [...exchanges.value, exchange]
    draft.value = ''
    attachments.value = []
    notice.value = null
  })
  void answer(exchange)
}

export function stop(): void {
  running.value?.abort()
}

/** Makes the answer of the last exchange once more. */
export function askAgain(): void {
  const exchange = exchanges.value.at(-1)
  if (running.value || !exchange) return
  batch(() => {
    exchange.answer.value = ''
    exchange.cost.value = NO_COST
    notice.value = null
  })
  void answer(exchange)
}

export function beginAnew(): void {
  stop()
  exchanges.value = []
  notice.value = null
}

async function answer(exchange: Exchange): Promise<void> {
  const controller = new AbortController()
  running.value = controller
  const writer = new Writer(exchange)
  try {
    await untilNotBusy(exchange, controller.signal, () => stream(exchange, writer, controller.signal))
  } catch (error) {
    writer.flush()
    const failure = failureOf(error)
    settle(exchange, failure)
    if (failure.kind === 'gone' || failure.kind === 'locked') void connect()
  } finally {
    writer.flush()
    if (running.value === controller) running.value = null
  }
}

async function stream(exchange: Exchange, writer: Writer, signal: AbortSignal): Promise<void> {
  const request: ChatRequest = {
    messages: messagesUpTo(exchange),
    ...sampling.value,
    ...(attention.value && { attention: attention.value }),
  }
  for await (const event of streamChat(request, { key: apiKey.value, signal })) writer.take(event)
}

/** A server that is still loading, or full, is asked again until it answers or the reader stops. */
async function untilNotBusy(exchange: Exchange, signal: AbortSignal, attempt: () => Promise<void>): Promise<void> {
  for (;;) {
    exchange.phase.value = { kind: 'waiting', note: null }
    try {
      return await attempt()
    } catch (error) {
      const failure = failureOf(error)
      if (failure.kind !== 'busy' || exchange.answer.value !== '') throw error
      exchange.phase.value = { kind: 'waiting', note: `${failure.text} Trying again.` }
      await pause(MS_BETWEEN_TRIES, signal)
    }
  }
}

/** An answer that broke off stays; a question that got none goes back to the composer, so that it can be changed. */
function settle(exchange: Exchange, failure: Failure): void {
  if (!exchanges.value.includes(exchange)) return
  batch(() => {
    if (exchange.answer.value !== '') {
      exchange.phase.value = failure.kind === 'stopped' ? { kind: 'done', reason: 'stopped' } : { kind: 'failed', failure }
      return
    }
    exchanges.value = exchanges.value.filter((other) => other !== exchange)
    draft.value = [exchange.question, draft.value].filter((text) => text !== '').join('\n')
    attachments.value = [...exchange.attachments, ...attachments.value]
    notice.value = failure.kind === 'stopped' ? null : failure
  })
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stopped = (): void => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stopped)
      resolve()
    }, ms)
    signal.addEventListener('abort', stopped, { once: true })
  })
}
