/** Keeps an eye on the server: finds it, waits while it loads, and reads the size of its cache while it answers. */
import { effect } from '@preact/signals'
import { cacheBytes, countTokens, serverInfo } from './api.ts'
import { ServerError } from './failure.ts'
import { apiKey, draft, draftTokens, exchanges, liveBytes, running, server } from './state.ts'

const MS_BETWEEN_TRIES = 1000
const MS_BETWEEN_READINGS = 500
const MS_TYPING = 250

/** Asks until there is an answer; called again when the key changes. */
export async function connect(): Promise<void> {
  const key = apiKey.value
  try {
    server.value = { kind: 'ready', ...(await serverInfo(key)) }
    return
  } catch (error) {
    const status = error instanceof ServerError ? error.status : 0
    server.value = { kind: status === 401 ? 'locked' : status === 503 ? 'loading' : 'unreachable' }
  }
  if (server.value.kind !== 'locked') setTimeout(() => key === apiKey.value && void connect(), MS_BETWEEN_TRIES)
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
  effect(() => {
    // An answer came, or a question failed: the server may have been away in between.
    if (!running.value && exchanges.value.length > 0 && server.peek().kind === 'unreachable') void connect()
  })
}

/** A count that fails is left out; the next one may come. */
function ignore(): void {}
