/** The HTTP server without its socket: every route, and the one place where errors become replies. */
import { setMaxListeners } from 'node:events'
import { Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { KvasirError } from '../core/errors.ts'
import { log } from '../core/log.ts'
import { requireKey } from './auth.ts'
import { chatCompletions } from './chat-completions.ts'
import { completions } from './completions.ts'
import type { AppEnv, AppHandler } from './context.ts'
import { asKvasirError, errorBody } from './error-body.ts'
import { createMetrics } from './metrics.ts'
import { getModel, listModels } from './models.ts'
import { checkOrigin } from './origin.ts'
import type { ServedEngine } from './served-engine.ts'
import { staticRoutes } from './static.ts'
import { health, metrics, props } from './status.ts'
import { applyTemplate, detokenize, tokenize } from './tokens.ts'

export interface AppOptions {
  /** The model; until a promise is kept, every endpoint answers 503. */
  readonly engine: ServedEngine | Promise<ServedEngine>
  readonly apiKeys?: readonly string[]
  /** Origins of web pages that may use the server, besides those of this machine; `*` is all. See origin.ts. */
  readonly corsOrigins?: readonly string[]
  /** Folder of the built web page, served at `/`. */
  readonly webFolder?: string
  /** The server listens on a loopback address only. */
  readonly loopback?: boolean
  /** Aborted when the server stops: running requests end. */
  readonly closing?: AbortSignal
  /** Milliseconds of silence after which a stream says that it is alive. */
  readonly pingMs?: number
  /** Largest request body in bytes. */
  readonly maxBodyBytes?: number
}

interface Route {
  readonly method: 'GET' | 'POST'
  readonly paths: readonly string[]
  readonly handler: AppHandler
  /** Needs no key. */
  readonly isPublic?: boolean
}

const ROUTES: readonly Route[] = [
  { method: 'GET', paths: ['/health', '/v1/health'], handler: health, isPublic: true },
  { method: 'POST', paths: ['/v1/chat/completions', '/chat/completions'], handler: chatCompletions },
  { method: 'POST', paths: ['/v1/completions', '/completions'], handler: completions },
  { method: 'GET', paths: ['/v1/models', '/models'], handler: listModels },
  { method: 'GET', paths: ['/v1/models/:id{.+}', '/models/:id{.+}'], handler: getModel },
  { method: 'GET', paths: ['/props'], handler: props },
  { method: 'POST', paths: ['/tokenize'], handler: tokenize },
  { method: 'POST', paths: ['/detokenize'], handler: detokenize },
  { method: 'POST', paths: ['/apply-template'], handler: applyTemplate },
  { method: 'GET', paths: ['/metrics'], handler: metrics },
]

export function createApp(options: AppOptions): Hono<AppEnv> {
  const { apiKeys = [], corsOrigins = [], loopback = false, pingMs = 5000, maxBodyBytes = 32 * 1024 ** 2 } = options
  const closing = options.closing ?? new AbortController().signal
  // Every running request listens to it.
  setMaxListeners(0, closing)
  const counters = createMetrics()
  let engine: ServedEngine | null = null
  const use = (loaded: ServedEngine): void => {
    engine = loaded
    counters.watch(loaded)
  }
  if (options.engine instanceof Promise) options.engine.then(use, () => {})
  else use(options.engine)

  const app = new Hono<AppEnv>()
  app.use((c, next) => {
    c.set('metrics', counters)
    c.set('closing', closing)
    c.set('pingMs', pingMs)
    c.set('maxBodyBytes', maxBodyBytes)
    return next()
  })
  app.use(checkOrigin({ origins: apiKeys.length > 0 ? ['*'] : corsOrigins, loopback }))
  for (const { method, paths, handler, isPublic } of ROUTES)
    for (const path of paths) {
      if (!isPublic) app.on(method, path, requireKey(apiKeys))
      app.on(method, path, (c) => {
        if (!engine) throw new KvasirError('loading')
        c.set('engine', engine)
        return handler(c)
      })
      app.all(path, (c) => {
        throw new KvasirError('method_not_allowed', { method: c.req.method, path: c.req.path, allowed: method })
      })
    }
  if (options.webFolder !== undefined) app.route('/', staticRoutes(options.webFolder))
  app.notFound((c) => {
    throw new KvasirError('not_found', { method: c.req.method, path: c.req.path })
  })
  app.onError((thrown, c) => {
    const error = asKvasirError(thrown)
    if (error.status === 500) log.error(thrown.stack ?? thrown.message)
    if (error.code === 'exceed_context_size_error') counters.overflow()
    if (error.code === 'method_not_allowed') c.header('allow', String(error.fields['allowed']))
    if (error.status === 503) c.header('retry-after', '1')
    return c.json(errorBody(error), error.status as ContentfulStatusCode)
  })
  return app
}
