import { expect, test } from 'vitest'
import { setLogLevel, setLogSink } from '../../src/core/log.ts'
import { createApp } from '../../src/server/app.ts'
import { FakeEngine, type FakeEngineOptions } from '../support/fake-engine.ts'
import { dataOf, jsonOf, post } from '../support/http.ts'

const hello = { messages: [{ role: 'user', content: 'hi' }] }
const PROMPT = 'user: hi\nassistant: '

function serve(options: FakeEngineOptions = {}) {
  const engine = new FakeEngine({ script: () => 'good day<end>', ...options })
  return { engine, app: createApp({ engine }) }
}

test('an answer has OpenAI’s shape, with usage, attention and timings', async () => {
  const { app } = serve()
  const response = await post(app, '/v1/chat/completions', hello)
  expect(response.status).toBe(200)
  expect(await response.json()).toEqual({
    id: expect.stringMatching(/^chatcmpl-\w{32}$/),
    object: 'chat.completion',
    created: expect.closeTo(Date.now() / 1000, -1),
    model: 'fake',
    system_fingerprint: expect.stringMatching(/^kvasir-\d/),
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: 'good day', refusal: null },
        logprobs: null,
        finish_reason: 'stop',
      },
    ],
    usage: {
      prompt_tokens: PROMPT.length,
      completion_tokens: 9,
      total_tokens: PROMPT.length + 9,
      prompt_tokens_details: { cached_tokens: 0 },
      attention: expect.objectContaining({ method: 'dense', density: 1, kv_bytes: expect.any(Number) }),
    },
    timings: expect.objectContaining({ prompt_n: PROMPT.length, predicted_n: 9, predicted_per_second: expect.any(Number) }),
  })
})

test('a stream opens with the role, ends with the reason and timings, then [DONE]', async () => {
  const { app } = serve()
  const response = await post(app, '/v1/chat/completions', { ...hello, stream: true })
  expect(response.headers.get('content-type')).toMatch(/^text\/event-stream/)
  const text = await response.text()
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
  const chunks = dataOf(text)
  expect(chunks[0].choices[0].delta).toEqual({ role: 'assistant', content: '' })
  expect(
    chunks
      .slice(1, -1)
      .map((chunk) => chunk.choices[0].delta.content)
      .join(''),
  ).toBe('good day')
  expect(chunks.at(-1)).toMatchObject({ choices: [{ delta: {}, finish_reason: 'stop' }], timings: { predicted_n: 9 } })
  expect(new Set(chunks.map((chunk) => chunk.id)).size).toBe(1)
  expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false)
})

test('include_usage adds a last chunk without choices that holds usage and timings', async () => {
  const { app } = serve()
  const body = { ...hello, stream: true, stream_options: { include_usage: true } }
  const chunks = dataOf(await (await post(app, '/v1/chat/completions', body)).text())
  expect(chunks.at(-1)).toMatchObject({
    choices: [],
    usage: { completion_tokens: 9, attention: { method: 'dense' } },
    timings: {},
  })
  expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null && chunk.choices.length === 1)).toBe(true)
})

test('n choices run with seeds of their own; the prompt counts once', async () => {
  const { app, engine } = serve({ script: ({ sampling }) => `seed ${sampling.seed}<end>` })
  const reply = await jsonOf(await post(app, '/v1/chat/completions', { ...hello, n: 3, seed: 7 }))
  expect(reply.choices.map((choice: { message: { content: string } }) => choice.message.content)).toEqual([
    'seed 7',
    'seed 8',
    'seed 9',
  ])
  expect(reply.choices.map((choice: { index: number }) => choice.index)).toEqual([0, 1, 2])
  expect(reply.usage).toMatchObject({ prompt_tokens: PROMPT.length, completion_tokens: 21, total_tokens: PROMPT.length + 21 })
  expect(engine.requests).toHaveLength(3)
})

test('n choices stream side by side, told apart by index', async () => {
  const { app } = serve({ script: ({ sampling }) => `${sampling.seed}${sampling.seed}<end>`, stepMs: 1 })
  const chunks = dataOf(await (await post(app, '/v1/chat/completions', { ...hello, n: 2, seed: 3, stream: true })).text())
  const texts = ['', '']
  for (const { choices } of chunks) texts[choices[0].index] += choices[0].delta.content ?? ''
  expect(texts).toEqual(['33', '44'])
  expect(chunks.filter((chunk) => chunk.choices[0].delta.role)).toHaveLength(2)
  expect(chunks.filter((chunk) => chunk.timings)).toEqual([chunks.at(-1)])
})

test('logprobs name each token of the content, its bytes and its alternatives, streamed or not', async () => {
  const { app } = serve({ script: () => 'ñ!<end>' })
  const body = { ...hello, logprobs: true, top_logprobs: 2 }
  const whole = (await jsonOf(await post(app, '/v1/chat/completions', body))).choices[0].logprobs
  const one = (token: string, byte: number, logprob: number) => ({ token, bytes: [byte], logprob: expect.closeTo(logprob) })
  expect(whole.content.map(({ token }: { token: string }) => token)).toEqual(['\ufffd', '\ufffd', '!'])
  expect(whole.content[2]).toEqual({
    ...one('!', 33, Math.log(0.5)),
    top_logprobs: [one('!', 33, Math.log(0.5)), one('"', 34, Math.log(0.25))],
  })
  const chunks = dataOf(await (await post(app, '/v1/chat/completions', { ...body, stream: true })).text())
  expect(chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? [])).toEqual(whole.content)
})

test.each([
  ['string content', [{ role: 'user', content: 'hi' }], PROMPT],
  [
    'text parts',
    [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
    ],
    'user: a\nb\nassistant: ',
  ],
  ['a developer message', [{ role: 'developer', content: 'be kind' }], 'system: be kind\nassistant: '],
  ['no content', [{ role: 'assistant', content: null }], 'assistant: \nassistant: '],
])('messages with %s become a prompt', async (_, messages, prompt) => {
  const { app, engine } = serve()
  expect((await post(app, '/v1/chat/completions', { messages })).status).toBe(200)
  expect(engine.tokenizer.decode(engine.requests[0]!.prompt)).toBe(prompt)
})

test.each([
  [{}, { maxTokens: -1, stop: [], topLogprobs: -1, ignoreEos: false, nCtx: undefined }],
  [{ max_tokens: 5 }, { maxTokens: 5 }],
  [{ max_completion_tokens: 6, max_tokens: 5 }, { maxTokens: 6 }],
  [{ n_predict: 7 }, { maxTokens: 7 }],
  [
    { max_tokens: null, seed: null, stop: null },
    { maxTokens: -1, stop: [], sampling: expect.objectContaining({ seed: -1 }) },
  ],
  [{ stop: 'x' }, { stop: ['x'] }],
  [{ stop: ['x', 'y'] }, { stop: ['x', 'y'] }],
  [{ ignore_eos: true }, { ignoreEos: true }],
  [{ num_ctx: 100 }, { nCtx: 100 }],
  [{ logprobs: true }, { topLogprobs: 0 }],
  [{ logprobs: false }, { topLogprobs: -1 }],
  [
    { temperature: 0, top_k: 3, min_p: 0.1 },
    { sampling: expect.objectContaining({ temperature: 0, top_k: 3, top_p: 0.95, min_p: 0.1 }) },
  ],
  [{ logit_bias: { 97: 5, 98: -100 } }, { sampling: expect.objectContaining({ logit_bias: { 97: 5, 98: -100 } }) }],
  [
    {
      logit_bias: [
        [97, 1.5],
        ['bc', false],
      ],
    },
    { sampling: expect.objectContaining({ logit_bias: { 97: 1.5, 98: -100, 99: -100 } }) },
  ],
  [{}, { attention: { spec: 'dense' } }],
  [{ attention: null }, { attention: { spec: 'dense' } }],
  [{ attention: 'streaming:sink=4,window=1k' }, { attention: { spec: 'streaming:window=1024' } }],
  [{ attention: { method: 'streaming', window: 64 } }, { attention: { spec: 'streaming:window=64' } }],
  [{ attention: ['dense', { method: 'streaming' }] }, { attention: { spec: 'streaming' } }],
])('%j asks the engine for %j', async (fields, expected) => {
  const { app, engine } = serve()
  const response = await post(app, '/v1/chat/completions', { ...hello, ...fields })
  expect(response.status).toBe(200)
  expect(engine.requests[0]).toMatchObject(expected)
})

test('max_tokens left out is until the context is full, and the reason then is length', async () => {
  const { app } = serve({ script: () => 'a'.repeat(500), nCtx: 64 })
  const reply = await jsonOf(await post(app, '/v1/chat/completions', hello))
  expect(reply.choices[0].finish_reason).toBe('length')
  expect(reply.usage.total_tokens).toBe(64)
})

test('a stop string ends the answer and is not part of it', async () => {
  const { app } = serve({ script: () => 'one STOP two' })
  const chunks = dataOf(await (await post(app, '/v1/chat/completions', { ...hello, stop: ['STOP'], stream: true })).text())
  expect(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('')).toBe('one ')
  expect(chunks.at(-1).choices[0].finish_reason).toBe('stop')
})

test('text that was held back comes before the end', async () => {
  const { app } = serve({ script: () => 'is it ST' })
  const chunks = dataOf(
    await (await post(app, '/v1/chat/completions', { ...hello, stop: ['STOP'], max_tokens: 8, stream: true })).text(),
  )
  expect(chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('')).toBe('is it ST')
})

test('return_progress tells how far the prompt is read, after the role', async () => {
  const { app } = serve({ prefillSteps: 4 })
  const chunks = dataOf(await (await post(app, '/v1/chat/completions', { ...hello, stream: true, return_progress: true })).text())
  expect(chunks[0].choices[0].delta.role).toBe('assistant')
  const steps = chunks.filter((chunk) => chunk.prompt_progress)
  expect(steps.map((chunk) => chunk.prompt_progress.processed)).toEqual([5, 10, 15, 20])
  expect(steps[0].prompt_progress).toEqual({ total: PROMPT.length, cache: 0, processed: 5, time_ms: expect.any(Number) })
})

test('a long silence is filled with comments', async () => {
  const app = createApp({ engine: new FakeEngine({ script: () => 'x<end>', stepMs: 120 }), pingMs: 30 })
  const text = await (await post(app, '/v1/chat/completions', { ...hello, stream: true })).text()
  expect(text.match(/^: /gm)!.length).toBeGreaterThanOrEqual(3)
  expect(text.startsWith(': ')).toBe(true)
  expect(dataOf(text).at(-1).choices[0].finish_reason).toBe('stop')
})

test('a failure while streaming is the last event', async () => {
  const { app } = serve({ failAt: 2 })
  const lines: string[] = []
  const before = setLogSink((line) => lines.push(line))
  const text = await (await post(app, '/v1/chat/completions', { ...hello, stream: true })).text()
  setLogSink(before)
  expect(lines).toEqual([expect.stringContaining('a test wanted it')])
  expect(text).not.toContain('[DONE]')
  expect(dataOf(text).at(-1)).toEqual({
    error: { message: expect.stringContaining('a test wanted it'), type: 'server_error', code: 'compute_failed', param: null },
  })
})

test('a failure of one choice stops the others', async () => {
  const { app, engine } = serve({ failAt: 2, stepMs: 1 })
  setLogLevel('silent')
  const response = await post(app, '/v1/chat/completions', { ...hello, n: 4 })
  setLogLevel('warn')
  expect(response.status).toBe(500)
  expect(engine.requests.every((request) => request.signal!.aborted)).toBe(true)
})

test('a reader that cancels the stream stops the engine', async () => {
  const { app, engine } = serve({ script: () => 'a'.repeat(4000), stepMs: 1 })
  const response = await post(app, '/v1/chat/completions', { ...hello, stream: true })
  const reader = response.body!.getReader()
  await reader.read()
  await reader.cancel()
  expect(engine.requests[0]!.signal!.aborted).toBe(true)
})
