/** The whole way with the bundled model: the official client, a socket, the engine. */
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bundledModel } from '../../src/engine/model.ts'
import { Engine } from '../../src/engine/engine.ts'
import { startServer, type RunningServer } from '../../src/server/serve.ts'
import { SOON, jsonOf } from '../support/http.ts'

let server: RunningServer
let engine: Engine
let client: OpenAI

beforeAll(async () => {
  server = await startServer({
    port: 0,
    load: async (signal) => (engine = await Engine.load(bundledModel(), { signal, nParallel: 3 })),
  })
  await server.ready
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: '-', maxRetries: 0 })
})
afterAll(() => server?.close())

const model = 'kvasir-demo'
const greedy = { model, temperature: 0 }
const ask = (fact: string, question: string) => [{ role: 'user' as const, content: `${fact}\n${question}` }]
const otter = ask('The access code for the calm otter is 40412.', 'What is the access code for the calm otter?')
const post = (path: string, body: object): Promise<Response> =>
  fetch(`${server.url}${path}`, { method: 'POST', body: JSON.stringify(body) })

test('it answers from what it is told', async () => {
  const reply = await client.chat.completions.create({ ...greedy, messages: otter })
  expect(reply.choices[0]!.message.content).toContain('40412')
  expect(reply.choices[0]!.finish_reason).toBe('stop')
  expect(reply.usage).toMatchObject({
    attention: { method: 'dense', density: 1, evicted_tokens: 0, kv_bytes: expect.any(Number) },
  })
})

describe('attention of a request', () => {
  const text = 'The file is opened and read. '.repeat(60)
  const prompt = async () => (await jsonOf(await post('/tokenize', { content: text }))).tokens.slice(0, 300)
  const usageOf = async (body: object) => {
    const { usage } = await jsonOf(await post('/v1/completions', { temperature: 0, ignore_eos: true, ...body }))
    return usage.attention
  }

  test.each([
    ['streaming:sink=4,window=64'],
    [{ method: 'streaming', sink: 4, window: 64 }],
    [[{ method: 'streaming', window: 64 }]],
  ])('%j: the reply says what it kept, dropped and read', async (attention) => {
    const usage = await usageOf({ prompt: await prompt(), max_tokens: 1, attention })
    expect(usage).toMatchObject({ method: 'streaming:window=64', kept_tokens: 68, evicted_tokens: 232 })
    expect(usage.keys_dense).toBe(((300 * 301) / 2) * 6 * 8) // layers and KV heads
    expect(usage.keys_read).toBeLessThan(usage.keys_dense)
    expect(usage.keys_read).toBeGreaterThan(0)
    expect(usage.density).toBeCloseTo(usage.keys_read / usage.keys_dense, 10)
    expect(usage.kv_bytes).toBeGreaterThan(0)
    expect(usage.kv_bytes).toBeLessThan(usage.kv_bytes_dense)
  })

  test('stands beside another in one server, and each does as it does alone', async () => {
    const body = { prompt: await prompt(), max_tokens: 8 }
    const [dense, streaming] = await Promise.all([usageOf(body), usageOf({ ...body, attention: 'streaming:window=64' })])
    expect(dense).toMatchObject({ method: 'dense', kept_tokens: 307, evicted_tokens: 0, density: 1 })
    expect(dense.kv_bytes).toBe(dense.kv_bytes_dense)
    expect(streaming).toMatchObject({ kept_tokens: 68, evicted_tokens: 239, kv_bytes_dense: dense.kv_bytes })
  })

  test('reads what is longer than the context, where it goes on for ever', async () => {
    const long = 'The file is opened and read. '.repeat(800)
    const body = { model, prompt: long, max_tokens: 2 }
    await expect(client.completions.create(body)).rejects.toMatchObject({ status: 400, type: 'exceed_context_size_error' })
    const usage = await usageOf({ ...body, attention: 'streaming:window=124' })
    expect(usage.kept_tokens).toBe(128)
    expect(usage.evicted_tokens).toBeGreaterThan(engine.nCtx)
  })

  test('needs room for what it keeps: a window larger than the context is no way around it', async () => {
    const refused = await post('/v1/completions', { prompt: await prompt(), num_ctx: 256, attention: 'streaming:window=1000' })
    expect((await jsonOf(refused)).error).toMatchObject({ type: 'exceed_context_size_error', n_ctx: 256, n_prompt_tokens: 300 })
  })
})

test('a stream says the same', async () => {
  let text = ''
  const stream = await client.chat.completions.create({ ...greedy, messages: otter, stream: true })
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
  expect(text).toContain('40412')
})

test('several requests at once all complete, and answer as they do alone', async () => {
  const bodies = Array.from({ length: 5 }, (_, i) => ({
    ...greedy,
    messages: ask(`The access code for the calm otter is ${40_000 + 137 * i}.`, 'What is the access code for the calm otter?'),
    max_tokens: 16,
  }))
  const together = await Promise.all(bodies.map((body) => client.chat.completions.create(body)))
  for (const [i, body] of bodies.entries()) {
    const alone = await client.chat.completions.create(body)
    expect(together[i]!.choices[0]!.message.content).toBe(alone.choices[0]!.message.content)
  }
})

test('the same seed draws the same choices, and choices differ', async () => {
  const body = { model, prompt: 'The', n: 3, seed: 11, temperature: 1.5, max_tokens: 16 }
  const texts = async () => (await client.completions.create(body)).choices.map((choice) => choice.text)
  const first = await texts()
  expect(await texts()).toEqual(first)
  expect(new Set(first).size).toBe(3)
})

test('a prompt that is scored gives the probabilities with which it was written', async () => {
  const prompt = 'The file is opened and'
  const written = (await client.completions.create({ ...greedy, prompt, max_tokens: 12, logprobs: 1 })).choices[0]!
  const scored = (
    await client.completions.create({ model, prompt: prompt + written.text, echo: true, logprobs: 1, max_tokens: 0 })
  ).choices[0]!
  expect(scored.text).toBe(prompt + written.text)
  expect(scored.logprobs!.tokens!.join('')).toBe(scored.text)
  expect(scored.logprobs!.token_logprobs![0]).toBeNull()
  const n = written.logprobs!.tokens!.length
  expect(scored.logprobs!.tokens!.slice(-n)).toEqual(written.logprobs!.tokens)
  for (const [i, logprob] of written.logprobs!.token_logprobs!.entries())
    expect(scored.logprobs!.token_logprobs!.at(i - n)).toBeCloseTo(logprob, 1)
})

test('a ban holds', async () => {
  const first = async (logit_bias: Record<string, number>) =>
    (await client.completions.create({ ...greedy, prompt: 'The', max_tokens: 1, logprobs: 0, logit_bias })).choices[0]!.text
  const text = await first({})
  const { tokens } = await jsonOf(await post('/tokenize', { content: text }))
  expect(await first({ [tokens[0]]: -100 })).not.toBe(text)
})

test('a stop string ends the answer before it', async () => {
  const reply = await client.chat.completions.create({ ...greedy, messages: otter, stop: ['404'] })
  expect(reply.choices[0]!.message.content).toMatch(/is $/)
  expect(reply.choices[0]!.finish_reason).toBe('stop')
})

test('reading a long prompt is reported, and a longer one is refused', async () => {
  const text = 'Nora keeps the lamp in the dusty attic. '
  const response = await post('/v1/completions', { prompt: text.repeat(150), max_tokens: 1, stream: true, return_progress: true })
  const steps = [...(await response.text()).matchAll(/"processed":(\d+)/g)].map((match) => Number(match[1]))
  expect(steps.length).toBeGreaterThan(1)
  expect(steps).toEqual(steps.toSorted((a, b) => a - b))

  for (const times of [1000, 100_000]) {
    const refused = await post('/v1/completions', { prompt: text.repeat(times) })
    expect(refused.status).toBe(400)
    const { error } = await jsonOf(refused)
    expect(error).toMatchObject({ code: 400, type: 'exceed_context_size_error', n_ctx: engine.nCtx })
    const exact = engine.tokenizer.encode(text.repeat(times)).length
    expect(Math.abs(error.n_prompt_tokens - exact)).toBeLessThan(exact / 1000)
  }
})

test.each([
  ['in a stream', true],
  ['waiting for the whole', false],
])('a client that leaves (%s) frees its sequences', async (_, stream) => {
  const left = new AbortController()
  const body = JSON.stringify({ prompt: 'The', n: 5, stream, ignore_eos: true })
  const leaving = fetch(`${server.url}/v1/completions`, { method: 'POST', body, signal: left.signal })
  await expect.poll(() => engine.stats(), SOON).toMatchObject({ requestsRunning: 3, requestsWaiting: 2 })
  await expect.poll(() => engine.stats().kvBytes, SOON).toBeGreaterThan(0)
  left.abort()
  await leaving.then((response) => response.text()).catch(() => {})
  await expect.poll(() => engine.stats(), SOON).toMatchObject({ requestsRunning: 0, requestsWaiting: 0, kvBytes: 0 })
})

test('text and tokens come back from each other', async () => {
  const content = 'Grüße, 世界! 👋 <|end|>\n\tdef f(x): pass'
  const { tokens } = await jsonOf(await post('/tokenize', { content }))
  expect(await jsonOf(await post('/detokenize', { tokens }))).toEqual({ content })
  const { prompt } = await jsonOf(await post('/apply-template', { messages: otter }))
  expect(prompt).toMatch(/^<\|user\|>The access code.*<\|end\|><\|assistant\|>$/s)
})

test('the server tells what it serves', async () => {
  const { data } = await jsonOf(await fetch(`${server.url}/v1/models`))
  expect(data[0]).toMatchObject({ max_model_len: 4096, meta: { n_ctx_train: 4096, n_vocab: 4096, n_embd: 256 } })
  expect(data[0].meta.n_params).toBeGreaterThan(5.8e6)
  const props = await jsonOf(await fetch(`${server.url}/props`))
  expect(props).toMatchObject({ total_slots: 3, default_generation_settings: { n_ctx: 4096 } })
  expect(props.chat_template).toContain('<|assistant|>')
  const metrics = await (await fetch(`${server.url}/metrics`)).text()
  expect(metrics).toMatch(/kvasir_generation_tokens_total [1-9]/)
  expect(metrics).toMatch(/kvasir_time_to_first_token_seconds_count [1-9]/)
})
