/** API keys: `Authorization: Bearer KEY`, or `X-Api-Key: KEY`. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import { KvasirError } from '../core/errors.ts'

/** Digests have one length, and all of them are compared: the time taken tells nothing of a key. */
const digest = (key: string): Buffer => createHash('sha256').update(key).digest()

/** Lets requests with one of the keys pass; everyone, if there is no key. */
export function requireKey(keys: readonly string[]): MiddlewareHandler {
  const known = keys.map(digest)
  return async (c, next) => {
    const header = c.req.header('authorization') ?? c.req.header('x-api-key') ?? ''
    const given = digest(header.replace(/^Bearer\s+/i, ''))
    const matches = known.filter((key) => timingSafeEqual(key, given)).length
    if (known.length > 0 && matches === 0) throw new KvasirError('unauthorized')
    await next()
  }
}
