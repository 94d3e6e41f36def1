/** What only a socket shows: clients that leave, ports, large bodies, loading and stopping. */
import { request as httpRequest, type ClientRequest } from 'node:http'
import { connect } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { startServer, type RunningServer, type ServeOptions } from '../../src/server/serve.ts'
import { FakeEngine, type FakeEngineOptions } from '../support/fake-engine.ts'
import { SOON, jsonOf } from '../support/http.ts'

const servers: RunningServer[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()))
})

async function start(options: FakeEngineOptions = {}, more: Partial<ServeOptions> = {}) {
  const engine = new FakeEngine(options)
  const server = await startServer({ port: 0, load: async () => engine, ...more })
  servers.push(server)
  await server.ready
  return { engine, server, url: server.url }
}

/** A request by hand, whose connection can be destroyed. */
function open(url: string, path: string, body: object): ClientRequest {
  const request = httpRequest(`${url}${path}`, { method: 'POST', agent: false })
  request.on('error', () => {})
  request.on('response', (response) => response.resume())
  request.end(JSON.stringify(body))
  return request
}

const post = (url: string, path: string, body: object | string): Promise<Response> =>
  fetch(`${url}${path}`, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })

const prompt = 'hello'

test.each([
  ['while it streams', { stream: true }, {}],
  ['while it waits for the whole reply', {}, {}],
  ['while the prompt is read', { stream: true }, { prefillSteps: 100_000 }],
  ['while the prompt is read, not streaming', {}, { prefillSteps: 100_000 }],
  ['with several choices', { stream: true, n: 4 }, {}],
])('a client that leaves %s frees its sequences', async (_, body, options) => {
  const { engine, url } = await start({ stepMs: 2, nCtx: 1e6, ...options })
  const request = open(url, '/v1/completions', { prompt, ...body })
  await expect.poll(() => engine.stats().requestsRunning, SOON).toBe('n' in body ? body.n : 1)
  expect(engine.requests.some((each) => each.signal!.aborted)).toBe(false)
  request.destroy()
  await expect.poll(() => engine.stats().requestsRunning, SOON).toBe(0)
  expect(engine.requests.every((each) => each.signal!.aborted)).toBe(true)
})

test('a client that leaves the queue does not hold up those behind', async () => {
  const { engine, url } = await start({ stepMs: 2, nCtx: 1e6, nParallel: 1 })
  const first = open(url, '/v1/completions', { prompt })
  await expect.poll(() => engine.stats().requestsRunning, SOON).toBe(1)
  const second = open(url, '/v1/completions', { prompt, stream: true })
  await expect.poll(() => engine.stats().requestsWaiting, SOON).toBe(1)
  second.destroy()
  await expect.poll(() => engine.stats().requestsWaiting, SOON).toBe(0)
  const third = post(url, '/v1/completions', { prompt, max_tokens: 3 })
  first.destroy()
  expect((await jsonOf(await third)).choices[0].text).toBe('aaa')
  expect(engine.stats()).toMatchObject({ requestsRunning: 0, requestsWaiting: 0 })
})

test('a client that reads slowly gets everything', async () => {
  const { url } = await start({ script: () => 'x'.repeat(3000) + '<end>' })
  const response = await post(url, '/v1/completions', { prompt, stream: true })
  let text = ''
  for await (const chunk of response.body!) {
    text += Buffer.from(chunk).toString()
    if (text.length < 100_000) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  expect(text.match(/"text":"x"/g)).toHaveLength(3000)
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
})

test('many requests at once all complete', async () => {
  const { url } = await start({ script: ({ sampling }) => `answer ${sampling.seed}<end>`, stepMs: 1, nParallel: 3 })
  const ask = async (seed: number) => jsonOf(await post(url, '/v1/completions', { prompt, seed }))
  const replies = await Promise.all(Array.from({ length: 30 }, (_, seed) => ask(seed)))
  expect(replies.map((reply) => reply.choices[0].text)).toEqual(replies.map((_, seed) => `answer ${seed}`))
})

test('headers of a stream come before the prompt is read', async () => {
  const { url } = await start({ prefillSteps: 100_000, stepMs: 2 })
  const left = new AbortController()
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    body: '{"prompt":"a","stream":true}',
    signal: left.signal,
  })
  expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/)
  left.abort()
})

test.each([
  ['with its length', (text: string) => text],
  ['in chunks', (text: string) => new Blob([text]).stream()],
])('large bodies %s: ten megabytes are read, too many are 413, and the server goes on', async (_, wrap) => {
  const { url } = await start({}, { maxBodyBytes: 16 * 1024 ** 2 })
  const send = async (size: number) => {
    const body = wrap(JSON.stringify({ prompt: 'x'.repeat(size) }))
    const response = await fetch(`${url}/v1/completions`, { method: 'POST', body, duplex: 'half' } as RequestInit)
    return [response.status, (await jsonOf(response)).error.type]
  }
  expect(await send(10 * 1024 ** 2)).toEqual([400, 'exceed_context_size_error'])
  expect(await send(20 * 1024 ** 2)).toEqual([413, 'invalid_request_error'])
  expect((await fetch(`${url}/health`)).status).toBe(200)
})

test('what is not HTTP does no harm', async () => {
  const { url, server } = await start()
  for (const bytes of [
    '\0\x01\x02',
    'GET / HTTP/9.9\r\n\r\n',
    'GET //../\\x HTTP/1.1\r\nHost: a b\r\n\r\n',
    'POST /v1/completions HTTP/1.1\r\n\r\n',
  ])
    await new Promise<void>((resolve) => {
      const socket = connect(server.port, '127.0.0.1', () => socket.end(bytes))
      socket.on('error', () => resolve()).on('close', () => resolve())
      socket.resume()
    })
  expect((await fetch(`${url}/health`)).status).toBe(200)
})

test('a client that leaves in the middle of its body does no harm', async () => {
  const { url } = await start()
  const request = httpRequest(`${url}/v1/completions`, { method: 'POST', agent: false, headers: { 'content-length': 1000 } })
  request.on('error', () => {})
  request.write('{"prompt": "he')
  await new Promise((resolve) => setTimeout(resolve, 20))
  request.destroy()
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect((await fetch(`${url}/health`)).status).toBe(200)
})

test('it listens at once and is 503 until the model is there', async () => {
  const arrival = new EventTarget()
  const load = (): Promise<FakeEngine> =>
    new Promise((resolve) => arrival.addEventListener('here', () => resolve(new FakeEngine())))
  const server = await startServer({ port: 0, load })
  servers.push(server)
  expect(server.url).toBe(`http://127.0.0.1:${server.port}`)
  expect((await fetch(`${server.url}/health`)).status).toBe(503)
  arrival.dispatchEvent(new Event('here'))
  await server.ready
  expect((await fetch(`${server.url}/health`)).status).toBe(200)
})

test('a model that cannot be loaded stops the server and tells why', async () => {
  const server = await startServer({
    port: 0,
    load: () => Promise.reject(new KvasirError('model_not_found', { path: 'x', reason: 'gone' })),
  })
  await expect(server.ready).rejects.toMatchObject({ code: 'model_not_found' })
  await server.closed
  await expect(fetch(`${server.url}/health`)).rejects.toThrow('fetch failed')
})

test('a port in use is an error before the model is loaded', async () => {
  const { server } = await start()
  let loads = 0
  const load = async (): Promise<FakeEngine> => {
    loads++
    return new FakeEngine()
  }
  const error = await startServer({ port: server.port, load }).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'port_in_use', message: expect.stringContaining(`127.0.0.1:${server.port}`) })
  expect(loads).toBe(0)
})

test('an address that is not ours is an error of the same kind', async () => {
  const load = async (): Promise<FakeEngine> => new FakeEngine()
  await expect(startServer({ host: '192.0.2.1', port: 0, load })).rejects.toMatchObject({ code: 'port_in_use' })
})

test('stopping ends what runs with an error, closes the model and the port', async () => {
  const { engine, server, url } = await start({ stepMs: 2, nCtx: 1e6 })
  const stream = await post(url, '/v1/completions', { prompt, stream: true })
  const whole = post(url, '/v1/completions', { prompt })
  await expect.poll(() => engine.stats().requestsRunning, SOON).toBe(2)
  const closing = server.close()
  expect(await stream.text()).toMatch(/data: \{"error":\{"message":"the model has been closed".*\n\n$/)
  expect((await whole).status).toBe(503)
  await closing
  expect(engine.closed).toBe(true)
  await expect(fetch(`${url}/health`)).rejects.toThrow('fetch failed')
})

test('a signal stops the server, also while the model loads', async () => {
  const stop = new AbortController()
  const engine = new FakeEngine()
  const load = (signal: AbortSignal): Promise<FakeEngine> =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve(engine)))
  const server = await startServer({ port: 0, load, signal: stop.signal })
  stop.abort()
  await server.closed
  expect(engine.closed).toBe(true)
})
