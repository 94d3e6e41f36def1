import { expect, test } from 'vitest'
import { createApp } from '../../src/server/app.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { jsonOf, post } from '../support/http.ts'

const app = createApp({ engine: new FakeEngine({ script: () => 'ok<end>' }), maxBodyBytes: 16 * 1024 ** 2 })
const hello = { messages: [{ role: 'user', content: 'hi' }] }

test.each([
  [{}, 'messages'],
  [{ messages: 'hi' }, 'messages'],
  [{ messages: [] }, 'messages'],
  [{ messages: [1] }, 'messages[0]'],
  [{ messages: [{ role: 'user', content: 5 }] }, 'messages[0].content'],
  [{ messages: [{ role: 'user', content: [{ type: 'image_url' }] }] }, 'messages[0].content[0]'],
  [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, 'messages[0].content[0].text'],
  [{ messages: [{ role: 'wizard', content: 'hi' }] }, 'messages[0].role'],
  [{ messages: [{ role: 'assistant', tool_calls: [{}] }] }, 'messages[0].tool_calls'],
  [{ ...hello, temperature: 'hot' }, 'temperature'],
  [{ ...hello, temperature: -1 }, 'temperature'],
  [{ ...hello, top_p: 2 }, 'top_p'],
  [{ ...hello, top_k: 1.5 }, 'top_k'],
  [{ ...hello, seed: 'x' }, 'seed'],
  [{ ...hello, n: 0 }, 'n'],
  [{ ...hello, n: 17 }, 'n'],
  [{ ...hello, stop: '' }, 'stop'],
  [{ ...hello, stop: ['a', ''] }, 'stop'],
  [{ ...hello, stop: Array(17).fill('a') }, 'stop'],
  [{ ...hello, max_tokens: -5 }, 'max_tokens'],
  [{ ...hello, max_tokens: 1e300 }, 'max_tokens'],
  [{ ...hello, n_predict: 'many' }, 'n_predict'],
  [{ ...hello, stream: 'yes' }, 'stream'],
  [{ ...hello, logit_bias: { a: 1 } }, 'logit_bias'],
  [{ ...hello, logit_bias: { 999: 1 } }, 'logit_bias'],
  [{ ...hello, logit_bias: { 99999999999: 1 } }, 'logit_bias'],
  [{ ...hello, logit_bias: [[5]] }, 'logit_bias'],
  [{ ...hello, logit_bias: { 5: true } }, 'logit_bias'],
  [{ ...hello, top_logprobs: 5 }, 'top_logprobs'],
  [{ ...hello, logprobs: true, top_logprobs: 21 }, 'top_logprobs'],
  [{ ...hello, num_ctx: 8192 }, 'num_ctx'],
  [{ ...hello, num_ctx: 0 }, 'num_ctx'],
  [{ ...hello, tools: [{ type: 'function' }] }, 'tools'],
  [{ ...hello, tool_choice: 'auto' }, 'tool_choice'],
  [{ ...hello, functions: [{}] }, 'functions'],
  [{ ...hello, response_format: { type: 'json_object' } }, 'response_format'],
  [{ ...hello, response_format: 'text' }, 'response_format'],
  [{ ...hello, modalities: ['text', 'audio'] }, 'modalities'],
  [{ ...hello, audio: {} }, 'audio'],
  [{ ...hello, prediction: { type: 'content' } }, 'prediction'],
  [{ ...hello, mirostat: 2 }, 'mirostat'],
])('chat refuses %j and names %s', async (body, param) => {
  const response = await post(app, '/v1/chat/completions', body)
  const { error } = await jsonOf(response)
  expect(response.status).toBe(400)
  expect(error).toMatchObject({ type: 'invalid_request_error', code: 'invalid_request', param })
  expect(error.message.slice(0, param.length + 2)).toBe(`${param}: `)
})

test.each([
  ['oracle', "unknown method 'oracle'; known: dense, "],
  [{ method: 'oracle', k: 512 }, "unknown method 'oracle'"],
  [{ method: 'constructor' }, "unknown method 'constructor'"],
  [{ k: 512 }, "a setting is a text, an object with 'method', or an array of these"],
  [5, 'a setting is a text'],
  [[['dense']], 'a setting is a text'],
  ['streaming:window=0', 'streaming: window is 0, and should be a whole number from 1 to '],
  [{ method: 'streaming', window: '64' }, "streaming: window is '64', and should be"],
  [['streaming', 'streaming:sink=3'], 'answer the same question'],
  ['x'.repeat(5_000_000), 'a setting of 5000000 characters'],
])('attention %#: the fault is told', async (attention, message) => {
  for (const [path, body] of [
    ['/v1/chat/completions', { ...hello, attention }],
    ['/v1/completions', { prompt: 'a', attention }],
  ] as const) {
    const response = await post(app, path, body)
    const { error } = await jsonOf(response)
    expect(response.status).toBe(400)
    expect(error).toMatchObject({ type: 'invalid_request_error', code: 'attention_invalid', param: 'attention' })
    expect(error.message).toContain(message)
    expect(error.message.length).toBeLessThan(300)
  }
})

test.each([
  [{}, 'prompt'],
  [{ prompt: 5 }, 'prompt'],
  [{ prompt: [] }, 'prompt'],
  [{ prompt: [[]] }, 'prompt'],
  [{ prompt: ['a', 5] }, 'prompt'],
  [{ prompt: [1.5] }, 'prompt'],
  [{ prompt: [-1] }, 'prompt'],
  [{ prompt: Array(257).fill('a') }, 'prompt'],
  [{ prompt: 'a', logprobs: true }, 'logprobs'],
  [{ prompt: 'a', logprobs: 21 }, 'logprobs'],
  [{ prompt: 'a', suffix: 'b' }, 'suffix'],
  [{ prompt: 'a', best_of: 3, n: 2 }, 'best_of'],
  [{ prompt: 'a', echo: 1 }, 'echo'],
])('completions refuse %j and name %s', async (body, param) => {
  const response = await post(app, '/v1/completions', body)
  expect(response.status).toBe(400)
  expect((await jsonOf(response)).error).toMatchObject({ code: 'invalid_request', param })
})

test.each([
  ['a token that does not exist', { prompt: [97, 5000] }, '5000'],
  ['no tokens', { prompt: '' }, 'prompt'],
])('completions refuse a prompt with %s', async (_, body, word) => {
  const response = await post(app, '/v1/completions', body)
  expect(response.status).toBe(400)
  expect((await jsonOf(response)).error.message).toContain(word)
})

test.each([
  ['user', 'me'],
  ['metadata', { a: 'b' }],
  ['store', false],
  ['service_tier', 'auto'],
  ['parallel_tool_calls', true],
  ['tools', []],
  ['tool_choice', 'none'],
  ['functions', null],
  ['response_format', { type: 'text' }],
  ['modalities', ['text']],
  ['typical_p', 1],
  ['something_new', { of: 'next year' }],
  ['__proto__', { polluted: true }],
])('%s: %j is harmless', async (name, value) => {
  const body = JSON.stringify(hello).replace(/\}$/, `,${JSON.stringify(name)}:${JSON.stringify(value)}}`)
  expect((await post(app, '/v1/chat/completions', body)).status).toBe(200)
})

test.each([
  ['', 'invalid_json'],
  ['{', 'invalid_json'],
  ['{"messages": [', 'invalid_json'],
  ['hello', 'invalid_json'],
  ['[]', 'invalid_request'],
  ['null', 'invalid_request'],
  ['"text"', 'invalid_request'],
  ['['.repeat(100_000), 'invalid_json'],
])('a body of %.20s is %s', async (body, code) => {
  const response = await post(app, '/v1/chat/completions', body)
  expect(response.status).toBe(400)
  expect((await jsonOf(response)).error).toMatchObject({ type: 'invalid_request_error', code })
})

test('a body that is no UTF-8, and half surrogates, do no harm', async () => {
  const bytes = Buffer.concat([Buffer.from('{"prompt":"'), Buffer.from([0xff, 0xfe, 0xc3]), Buffer.from('\\ud83d"}')])
  expect((await app.request('/v1/completions', { method: 'POST', body: bytes })).status).toBe(200)
})

test('any content type will do', async () => {
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/json; charset=utf-8']) {
    const init = { method: 'POST', body: JSON.stringify(hello), headers: { 'content-type': type } }
    expect((await app.request('/v1/chat/completions', init)).status).toBe(200)
  }
})

test('a prompt that does not fit is the error that llama.cpp’s clients know', async () => {
  for (const prompt of ['x'.repeat(5000), 'x y '.repeat(2_500_000)]) {
    const response = await post(app, '/v1/completions', { prompt })
    expect(response.status).toBe(400)
    expect(await jsonOf(response)).toEqual({
      error: {
        code: 400,
        type: 'exceed_context_size_error',
        message: expect.stringContaining(`${prompt.length} tokens`),
        n_prompt_tokens: prompt.length,
        n_ctx: 4096,
      },
    })
  }
})

test('too many token ids are the same error', async () => {
  const response = await post(app, '/v1/completions', `{"prompt":[${'1,'.repeat(2_000_000)}1]}`)
  expect((await jsonOf(response)).error).toMatchObject({
    type: 'exceed_context_size_error',
    n_prompt_tokens: 2_000_001,
    n_ctx: 4096,
  })
})

test.each([
  ['/tokenize', { content: 'x'.repeat(1_000_001), with_pieces: true }, 'with_pieces'],
  ['/v1/completions', { prompt: Array(60).fill('x'.repeat(4000)), echo: true, logprobs: 20 }, 'logprobs'],
])('%s refuses to build a reply that would fill the memory', async (path, body, param) => {
  const response = await post(app, path, body)
  expect(response.status).toBe(400)
  expect((await jsonOf(response)).error).toMatchObject({ code: 'invalid_request', param })
})

test('num_ctx lowers the context of one request', async () => {
  const response = await post(app, '/v1/completions', { prompt: 'x'.repeat(100), num_ctx: 50 })
  expect((await jsonOf(response)).error).toMatchObject({ type: 'exceed_context_size_error', n_prompt_tokens: 100, n_ctx: 50 })
})

test('a body over the limit is 413', async () => {
  const response = await post(app, '/v1/completions', { prompt: 'x'.repeat(16 * 1024 ** 2) })
  expect(response.status).toBe(413)
  expect((await jsonOf(response)).error).toMatchObject({ code: 'body_too_large', type: 'invalid_request_error' })
})

test.each([
  ['numbers for messages', '{"messages":[' + '1,'.repeat(5_000_000) + '1]}'],
  ['numbers for text parts', '{"messages":[{"role":"user","content":[' + '1,'.repeat(5_000_000) + '1]}]}'],
  ['wrong tokens', '{"prompt":[' + '"",'.repeat(3_000_000) + '1]}'],
  ['wrong stops', '{"prompt":"a","messages":[{"role":"user","content":""}],"stop":[' + '1,'.repeat(5_000_000) + '1]}'],
])('ten megabytes of %s are refused', async (_, body) => {
  const path = body.includes('messages') ? '/v1/chat/completions' : '/v1/completions'
  expect((await post(app, path, body)).status).toBe(400)
})

test('other requests are answered while a long prompt is counted', async () => {
  const answered: string[] = []
  const long = post(app, '/v1/completions', { prompt: 'a word '.repeat(1_400_000) }).then(() => answered.push('long'))
  const short = new Promise((resolve) => setTimeout(resolve, 1))
    .then(() => post(app, '/v1/completions', { prompt: 'hi' }))
    .then(() => answered.push('short'))
  await Promise.all([long, short])
  expect(answered).toEqual(['short', 'long'])
})
