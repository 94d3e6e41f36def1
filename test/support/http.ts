/** Requests to an app without a socket, and what its streams say. */
import type { Hono } from 'hono'
import type { AppEnv } from '../../src/server/context.ts'

/** For `expect.poll`: it happens at once on an idle machine, and a busy one may take its time. */
export const SOON = { timeout: 30_000, interval: 5 }

export async function post(app: Hono<AppEnv>, path: string, body: unknown): Promise<Response> {
  return app.request(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })
}

/** The JSON events of a stream, without comments and [DONE]. */
// oxlint-disable-next-line typescript/no-explicit-any
export function dataOf(text: string): any[] {
  const lines = text.split('\n').filter((line) => line.startsWith('data: ') && line !== 'data: [DONE]')
  return lines.map((line) => JSON.parse(line.slice(6)))
}

// oxlint-disable-next-line typescript/no-explicit-any
export async function jsonOf(response: Response): Promise<any> {
  return response.json()
}
