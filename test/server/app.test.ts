import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { METHODS } from '../../src/attention/registry.ts'
import { createApp } from '../../src/server/app.ts'
import type { ServedEngine } from '../../src/server/served-engine.ts'
import { setLogSink } from '../../src/core/log.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { jsonOf, post } from '../support/http.ts'

const app = createApp({ engine: new FakeEngine({ script: () => 'ok<end>' }) })

test('/health is ok once there is a model', async () => {
  const response = await app.request('/health')
  expect(response.status).toBe(200)
  expect(await jsonOf(response)).toEqual({ status: 'ok' })
})

test('before that, every endpoint is 503 and asks to come again', async () => {
  const arrival = new EventTarget()
  const engine = new Promise<ServedEngine>((resolve) => arrival.addEventListener('here', () => resolve(new FakeEngine())))
  const loading = createApp({ engine })
  const requests = [
    ['GET', '/health'],
    ['GET', '/v1/models'],
    ['GET', '/metrics'],
    ['POST', '/v1/chat/completions'],
    ['POST', '/tokenize'],
  ]
  for (const [method, path] of requests) {
    const response = await loading.request(path!, { method: method! })
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('1')
    expect((await jsonOf(response)).error).toMatchObject({ type: 'unavailable_error', code: 'loading' })
  }
  arrival.dispatchEvent(new Event('here'))
  await Promise.resolve()
  expect((await loading.request('/health')).status).toBe(200)
})

test('the model is listed with its measures', async () => {
  const model = {
    id: 'fake',
    object: 'model',
    created: expect.any(Number),
    owned_by: 'kvasir',
    max_model_len: 4096,
    meta: { n_ctx_train: 4096, n_vocab: 257, n_embd: 8, n_params: 8 * 257, size: 8224 },
  }
  expect(await jsonOf(await app.request('/v1/models'))).toEqual({ object: 'list', data: [model] })
  expect(await jsonOf(await app.request('/v1/models/fake'))).toEqual(model)
})

test('a model that is not there is 404', async () => {
  const response = await app.request('/v1/models/some/other')
  expect(response.status).toBe(404)
  expect((await jsonOf(response)).error).toMatchObject({ code: 'model_not_found', message: expect.stringContaining("'fake'") })
})

test('/props has llama.cpp’s fields, and the methods of attention', async () => {
  expect(await jsonOf(await app.request('/props'))).toMatchObject({
    default_generation_settings: {
      n_ctx: 4096,
      params: { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, max_tokens: -1, attention: 'dense' },
    },
    total_slots: 4,
    chat_template: '{{ messages }}',
    build_info: expect.stringMatching(/^kvasir-\d/),
    model_path: '/models/fake.gguf',
    attention_default: [],
  })
})

test('/props has the schema of every method, as a form wants it', async () => {
  const { attention_methods: methods } = await jsonOf(await app.request('/props'))
  expect(methods.map(({ name }: { name: string }) => name).toSorted()).toEqual(METHODS.map(({ name }) => name).toSorted())
  expect(methods.find(({ name }: { name: string }) => name === 'streaming')).toMatchObject({
    axis: 'keep',
    summary: expect.stringMatching(/./),
    source: expect.stringContaining('2309.17453'),
    cost: expect.stringMatching(/./),
    options: { type: 'object', properties: { sink: { type: 'integer', minimum: 0, maximum: 4096, default: 4 } } },
    defaults: { sink: 4, window: 2000 },
    conflicts: {},
  })
})

test.each([
  [{ content: 'hé' }, [104, 195, 169]],
  [{ content: 'a<end>' }, [97, 256]],
  [{ content: '<end>', parse_special: false }, [60, 101, 110, 100, 62]],
  [{ content: '' }, []],
  [
    { content: 'hé<end>', with_pieces: true },
    [
      { id: 104, piece: 'h' },
      { id: 195, piece: [195] },
      { id: 169, piece: [169] },
      { id: 256, piece: '<end>' },
    ],
  ],
])('/tokenize turns %j into %j', async (body, tokens) => {
  expect(await jsonOf(await post(app, '/tokenize', body))).toEqual({ tokens })
})

test('/detokenize gives the text back, special tokens included', async () => {
  expect(await jsonOf(await post(app, '/detokenize', { tokens: [104, 195, 169, 256] }))).toEqual({ content: 'hé<end>' })
  expect((await post(app, '/detokenize', { tokens: [257] })).status).toBe(400)
  expect((await post(app, '/detokenize', { tokens: ['a'] })).status).toBe(400)
  expect((await post(app, '/tokenize', { tokens: ['a'] })).status).toBe(400)
})

test('/apply-template shows the prompt of a chat', async () => {
  const reply = await jsonOf(await post(app, '/apply-template', { messages: [{ role: 'user', content: 'hi' }] }))
  expect(reply).toEqual({ prompt: 'user: hi\nassistant: ' })
})

test.each(['/v1/chat/completions', '/chat/completions'])('%s is a chat', async (path) => {
  expect((await post(app, path, { messages: [{ role: 'user', content: 'hi' }] })).status).toBe(200)
})

test.each(['/v1/completions', '/completions'])('%s is a completion', async (path) => {
  expect((await post(app, path, { prompt: 'hi' })).status).toBe(200)
})

test.each(['/nothing', '/v1', '/v1/embeddings', '/'])('%s does not exist', async (path) => {
  const response = await app.request(path)
  expect(response.status).toBe(404)
  expect((await jsonOf(response)).error).toMatchObject({ code: 'not_found', type: 'not_found_error' })
})

test.each([
  ['GET', '/v1/chat/completions', 'POST'],
  ['POST', '/health', 'GET'],
  ['DELETE', '/v1/models', 'GET'],
])('%s %s is the wrong method', async (method, path, allowed) => {
  const response = await app.request(path, { method })
  expect(response.status).toBe(405)
  expect(response.headers.get('allow')).toBe(allowed)
  expect((await jsonOf(response)).error.code).toBe('method_not_allowed')
})

test('HEAD /health answers as GET, without a body', async () => {
  const response = await app.request('/health', { method: 'HEAD' })
  expect([response.status, await response.text()]).toEqual([200, ''])
})

test('a defect is 500, is logged, and the server goes on', async () => {
  const engine = new FakeEngine({ script: () => 'ok<end>' })
  const lines: string[] = []
  const before = setLogSink((line) => lines.push(line))
  const broken = createApp({ engine })
  engine.submit = () => {
    throw new TypeError('x is undefined')
  }
  const response = await post(broken, '/v1/completions', { prompt: 'a' })
  setLogSink(before)
  expect(response.status).toBe(500)
  expect((await jsonOf(response)).error).toMatchObject({ type: 'server_error', code: 'internal' })
  expect(lines.join()).toContain('x is undefined')
  expect((await broken.request('/health')).status).toBe(200)
})

test('the web page is served at /, also while the model loads', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvasir-web-'))
  writeFileSync(join(folder, 'index.html'), '<title>Kvasir</title>')
  const page = createApp({ engine: new Promise(() => {}), webFolder: folder, apiKeys: ['secret'] })
  const response = await page.request('/')
  rmSync(folder, { recursive: true })
  expect(response.status).toBe(200)
  expect(await response.text()).toContain('Kvasir')
})
