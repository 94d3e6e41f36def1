import { expect, test } from 'vitest'
import { createApp } from '../../src/server/app.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { jsonOf } from '../support/http.ts'

const engine = new FakeEngine()

test.each([
  [{}, 401],
  [{ authorization: 'Bearer wrong' }, 401],
  [{ authorization: 'Bearer ' }, 401],
  [{ authorization: 'Bearer first' }, 200],
  [{ authorization: 'bearer second' }, 200],
  [{ authorization: 'first' }, 200],
  [{ 'x-api-key': 'second' }, 200],
])('with keys, %j gets %d', async (headers, status) => {
  const app = createApp({ engine, apiKeys: ['first', 'second'] })
  const response = await app.request('/v1/models', { headers: headers as Record<string, string> })
  expect(response.status).toBe(status)
})

test('a missing key is OpenAI’s error', async () => {
  const response = await createApp({ engine, apiKeys: ['key'] }).request('/v1/models')
  expect((await jsonOf(response)).error).toMatchObject({ type: 'authentication_error', code: 'unauthorized' })
})

test('/health needs no key; /metrics and /props do', async () => {
  const app = createApp({ engine, apiKeys: ['key'] })
  expect((await app.request('/health')).status).toBe(200)
  expect((await app.request('/metrics')).status).toBe(401)
  expect((await app.request('/props')).status).toBe(401)
})

test.each([
  ['http://localhost:5173', 200],
  ['http://127.0.0.1:9999', 200],
  ['http://[::1]:3000', 200],
  ['http://app.localhost', 200],
  ['http://kvasir.lan:8080', 200],
  ['https://evil.example', 403],
  ['http://127.0.0.1.evil.example', 403],
  ['http://localhost.evil.example', 403],
  ['null', 403],
])('without keys, a page from %s gets %d', async (origin, status) => {
  const response = await createApp({ engine }).request('http://kvasir.lan:8080/v1/models', { headers: { origin } })
  expect(response.status).toBe(status)
  expect(response.headers.get('access-control-allow-origin')).toBe(status === 200 ? origin : null)
})

test.each([
  ['an origin that was named', { corsOrigins: ['https://chat.example'] }],
  ['all origins', { corsOrigins: ['*'] }],
  ['keys', { apiKeys: ['key'] }],
])('with %s, other pages may ask', async (_, options) => {
  const headers = { origin: 'https://chat.example', authorization: 'Bearer key' }
  const response = await createApp({ engine, ...options }).request('/v1/models', { headers })
  expect(response.status).toBe(200)
  expect(response.headers.get('access-control-allow-origin')).toBe('https://chat.example')
})

test('a preflight is answered without a key', async () => {
  const response = await createApp({ engine, apiKeys: ['key'] }).request('/v1/chat/completions', {
    method: 'OPTIONS',
    headers: { origin: 'https://chat.example', 'access-control-request-headers': 'authorization, x-stainless-os' },
  })
  expect(response.status).toBe(204)
  expect(response.headers.get('access-control-allow-headers')).toBe('authorization, x-stainless-os')
  expect(response.headers.get('access-control-allow-methods')).toContain('POST')
})

test.each([
  ['http://127.0.0.1:8080/health', {}, 200],
  ['http://localhost:8080/health', {}, 200],
  ['http://[::1]:8080/health', {}, 200],
  ['http://evil.example:8080/health', {}, 403],
  ['http://evil.example:8080/health', { apiKeys: ['key'] }, 200],
])('on a loopback address, %s with %j gets %d', async (url, options, status) => {
  expect((await createApp({ engine, loopback: true, ...options }).request(url)).status).toBe(status)
})
