/**
 * Which web pages may use the server. Any page that a browser has open can send requests to 127.0.0.1, so a server
 * without a key answers only pages that came from this machine or from the server itself; others get 403, before
 * anything is computed. A page that points its own name at 127.0.0.1 (DNS rebinding) would count as the server itself,
 * so a server that listens on a loopback address also refuses other names in `Host`. Programs send no `Origin` and are
 * not concerned. With API keys every origin is allowed: the key decides.
 */
import type { MiddlewareHandler } from 'hono'
import { KvasirError } from '../core/errors.ts'

export interface OriginOptions {
  /** Origins to allow besides; `*` is all. */
  readonly origins: readonly string[]
  /** The server listens on a loopback address only. */
  readonly loopback: boolean
}

export function isLoopback(host: string): boolean {
  const name = host.toLowerCase().replace(/^\[|\]$/g, '')
  return name === 'localhost' || name.endsWith('.localhost') || name === '::1' || /^127(\.\d{1,3}){3}$/.test(name)
}

function parseOrigin(origin: string): URL | null {
  try {
    return new URL(origin)
  } catch {
    return null
  }
}

/** Checks `Origin` and `Host`, answers preflights, and sets the CORS headers. */
export function checkOrigin({ origins, loopback }: OriginOptions): MiddlewareHandler {
  const all = origins.includes('*')
  return async (c, next) => {
    const own = new URL(c.req.url)
    if (loopback && !all && !isLoopback(own.hostname)) throw new KvasirError('forbidden_origin', { origin: own.host })
    const origin = c.req.header('origin')
    if (origin !== undefined) {
      const from = parseOrigin(origin)
      const known = from !== null && (isLoopback(from.hostname) || from.host === own.host)
      if (!all && !known && !origins.includes(origin)) throw new KvasirError('forbidden_origin', { origin })
      c.header('access-control-allow-origin', origin)
      c.header('vary', 'Origin')
    }
    if (c.req.method !== 'OPTIONS') return next()
    c.header('access-control-allow-methods', 'GET, POST, OPTIONS')
    c.header('access-control-allow-headers', c.req.header('access-control-request-headers') ?? '*')
    c.header('access-control-max-age', '600')
    return c.body(null, 204)
  }
}
