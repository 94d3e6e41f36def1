/** The server with its socket: listens at once, loads the model meanwhile, and stops within seconds. */
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { KvasirError, reasonOf } from '../core/errors.ts'
import { createApp, type AppOptions } from './app.ts'
import { isLoopback } from './origin.ts'
import type { ServedEngine } from './served-engine.ts'

export interface ServeOptions extends Omit<AppOptions, 'engine' | 'closing' | 'loopback'> {
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Default 8080; 0 takes a free one. */
  readonly port?: number
  /** Loads the model, which is closed with the server. The signal is aborted if the server stops before. */
  readonly load: (signal: AbortSignal) => Promise<ServedEngine & AsyncDisposable>
  /** Stops the server. */
  readonly signal?: AbortSignal | undefined
}

export interface RunningServer extends AsyncDisposable {
  /** `http://127.0.0.1:8080` */
  readonly url: string
  readonly port: number
  /** Kept when the model is loaded; broken, with the server stopped, if it cannot be. */
  readonly ready: Promise<void>
  /** Kept when the server has stopped and the model is closed. */
  readonly closed: Promise<void>
  /** Stops accepting, ends what runs, closes the model. */
  close(): Promise<void>
}

/** Replies get this long to end by themselves when the server stops. */
const GRACE_MS = 2000

function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new KvasirError('port_in_use', { host, port, reason: reasonOf(error) })))
    server.listen(port, host, () => resolve(server.address() as AddressInfo))
  })
}

async function stopListening(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  const deadline = setTimeout(() => server.closeAllConnections(), GRACE_MS)
  // Clients keep connections open after their last reply; Node closes only those that are idle now.
  const idle = setInterval(() => server.closeIdleConnections(), 20)
  await closed
  clearInterval(idle)
  clearTimeout(deadline)
}

/** Resolves when the port is open; throws `port_in_use`. */
export async function startServer(options: ServeOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 8080, load, signal, ...rest } = options
  const closing = new AbortController()
  let begin = (): void => {}
  const engine = new Promise<void>((resolve) => (begin = resolve)).then(() => load(closing.signal))
  const app = createApp({ ...rest, engine, loopback: isLoopback(host), closing: closing.signal })
  const server = createAdaptorServer({ fetch: app.fetch, overrideGlobalObjects: false }) as Server
  const address = await listen(server, host, port)
  begin()

  async function stop(): Promise<void> {
    signal?.removeEventListener('abort', onAbort)
    closing.abort()
    await stopListening(server)
    const loaded = await engine.catch(() => null)
    await loaded?.[Symbol.asyncDispose]()
  }
  let stopping: Promise<void> | undefined
  let markClosed = (): void => {}
  const closed = new Promise<void>((resolve) => (markClosed = resolve))
  function close(): Promise<void> {
    stopping ??= stop().finally(markClosed)
    return stopping
  }
  function onAbort(): void {
    void close()
  }

  const ready = engine.then(
    () => {},
    async (error: unknown) => {
      await close()
      throw error
    },
  )
  ready.catch(() => {})
  if (signal?.aborted) onAbort()
  signal?.addEventListener('abort', onAbort, { once: true })
  const name = host.includes(':') ? `[${host}]` : host
  return { url: `http://${name}:${address.port}`, port: address.port, ready, closed, close, [Symbol.asyncDispose]: close }
}
