/** Keeps an eye on the server: finds it, waits while it loads, and reads the size of its cache while it answers. */
import { effect } from '@preact/signals'
import { cacheBytes, countTokens, serverInfo } from './api.ts'
import { ServerError } from './failure.ts'
import { apiKey, draft, draftTokens, liveBytes, running, type Server, server } from './state.ts'

const MS_BETWEEN_TRIES = 1000
const MS_BETWEEN_READINGS = 500
const MS_TYPING = 250

let nCalls = 0

/** Asks until there is an answer; called again when the key changes or the server was lost. */
export async function connect(): Promise<void> {
  const call = ++nCalls
  const found = await look()
  if (call !== nCalls) return
  server.value = found
  if (found.kind === 'loading' || found.kind === 'unreachable')
    setTimeout(() => {
      if (call === nCalls) void connect()
    }, MS_BETWEEN_TRIES)
}

async function look(): Promise<Server> {
  try {
    return { kind: 'ready', ...(await serverInfo(apiKey.value)) }
  } catch (error) {
    const status = error instanceof ServerError ? error.status : 0
    return { kind: status === 401 ? 'locked' : status === 503 ? 'loading' : 'unreachable' }
  }
}

/** Starts the watches; they last as long as the page. */
export function watch(): void {
  void connect()
  effect(() => {
    if (!running.value) return
    const read = (): void => void cacheBytes(apiKey.peek()).then((value) => (liveBytes.value = value), ignore)
    const timer = setInterval(read, MS_BETWEEN_READINGS)
    return () => {
      clearInterval(timer)
      liveBytes.value = null
    }
  })
  effect(() => {
    const content = draft.value
    draftTokens.value = null
    if (content.trim() === '' || server.value.kind !== 'ready') return
    const left = new AbortController()
    const count = (): void =>
      void countTokens(content, { key: apiKey.peek(), signal: left.signal }).then((value) => (draftTokens.value = value), ignore)
    const timer = setTimeout(count, MS_TYPING)
    return () => {
      clearTimeout(timer)
      left.abort()
    }
  })
}

/** A count that fails is left out; the next one may come. */
function ignore(): void {}
