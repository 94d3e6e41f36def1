import { expect, test } from 'vitest'
import { createApp } from '../../src/server/app.ts'
import { FakeEngine, type FakeEngineOptions } from '../support/fake-engine.ts'
import { dataOf, jsonOf, post } from '../support/http.ts'

const HALF = Math.log(0.5)

function serve(options: FakeEngineOptions = {}) {
  const engine = new FakeEngine({ script: () => 'def<end>', ...options })
  return { engine, app: createApp({ engine }) }
}

test('a completion has OpenAI’s shape', async () => {
  const { app } = serve()
  expect(await jsonOf(await post(app, '/v1/completions', { prompt: 'abc' }))).toMatchObject({
    id: expect.stringMatching(/^cmpl-\w{32}$/),
    object: 'text_completion',
    choices: [{ index: 0, text: 'def', logprobs: null, finish_reason: 'stop' }],
    usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7, attention: { method: 'dense' } },
    timings: { prompt_n: 3, predicted_n: 4 },
  })
})

test.each([
  ['a string', 'abc', ['abc']],
  ['token ids', [97, 98], ['ab']],
  ['strings', ['ab', 'c'], ['ab', 'c']],
  ['arrays of token ids', [[97], [98, 99]], ['a', 'bc']],
])('%s as prompt is read', async (_, prompt, expected) => {
  const { app, engine } = serve()
  const reply = await jsonOf(await post(app, '/v1/completions', { prompt }))
  expect(engine.requests.map((request) => engine.tokenizer.decode(request.prompt))).toEqual(expected)
  expect(reply.choices).toHaveLength(expected.length)
})

test('several prompts with n choices each come in the order of the prompts, and each prompt counts once', async () => {
  const { app } = serve({ script: ({ prompt, sampling }) => `${String.fromCharCode(prompt[0]!)}${sampling.seed}<end>` })
  const reply = await jsonOf(await post(app, '/v1/completions', { prompt: ['xx', 'yyy'], n: 2, seed: 4 }))
  expect(reply.choices.map((choice: { text: string }) => choice.text)).toEqual(['x4', 'x5', 'y4', 'y5'])
  expect(reply.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 12, total_tokens: 17 })
})

test('special tokens written in a prompt are read as such', async () => {
  const { app, engine } = serve()
  await post(app, '/v1/completions', { prompt: 'a<end>' })
  expect([...engine.requests[0]!.prompt]).toEqual([97, 256])
})

test('logprobs are four lists, with the chosen token among the alternatives', async () => {
  const { app } = serve()
  const { choices } = await jsonOf(await post(app, '/v1/completions', { prompt: 'abc', logprobs: 2 }))
  expect(choices[0].logprobs).toEqual({
    tokens: ['d', 'e', 'f'],
    token_logprobs: [HALF, HALF, HALF],
    top_logprobs: [
      { d: HALF, e: Math.log(0.25) },
      { e: HALF, f: Math.log(0.25) },
      { f: HALF, g: Math.log(0.25) },
    ],
    text_offset: [0, 1, 2],
  })
})

test('logprobs of 0 report the chosen tokens', async () => {
  const { app } = serve()
  const { choices } = await jsonOf(await post(app, '/v1/completions', { prompt: 'abc', logprobs: 0 }))
  expect(choices[0].logprobs.top_logprobs).toEqual([{ d: HALF }, { e: HALF }, { f: HALF }])
})

test('tokens that are not whole characters keep their bytes, and offsets count characters', async () => {
  const { app } = serve({ script: () => 'é!<end>' })
  const { choices } = await jsonOf(await post(app, '/v1/completions', { prompt: 'abc', logprobs: 0 }))
  expect(choices[0].logprobs).toMatchObject({ tokens: ['bytes:\\xc3', 'bytes:\\xa9', '!'], text_offset: [0, 0, 1] })
})

test('echo with logprobs and no new tokens scores the prompt, as evaluation harnesses ask', async () => {
  const { app, engine } = serve()
  const body = { prompt: 'abc', echo: true, logprobs: 1, max_tokens: 0 }
  const { choices } = await jsonOf(await post(app, '/v1/completions', body))
  expect(choices[0]).toEqual({
    index: 0,
    text: 'abc',
    logprobs: {
      tokens: ['a', 'b', 'c'],
      token_logprobs: [null, HALF, HALF],
      top_logprobs: [null, { b: HALF }, { c: HALF }],
      text_offset: [0, 1, 2],
    },
    finish_reason: 'length',
  })
  expect(engine.requests[0]).toMatchObject({ maxTokens: 0, promptLogprobs: true })
})

test('echo of token ids repeats their text', async () => {
  const { app, engine } = serve()
  const { choices } = await jsonOf(await post(app, '/v1/completions', { prompt: [97, 98, 99], echo: true }))
  expect(choices[0].text).toBe('abcdef')
  expect(engine.requests[0]!.promptLogprobs).toBe(false)
})

test('a stream adds up to the same text and logprobs as a whole reply', async () => {
  const body = { prompt: ['abc', 'é'], echo: true, logprobs: 1 }
  const whole = await jsonOf(await post(serve().app, '/v1/completions', body))
  const chunks = dataOf(await (await post(serve().app, '/v1/completions', { ...body, stream: true })).text())
  for (const [index, choice] of whole.choices.entries()) {
    const parts = chunks.map((chunk) => chunk.choices[0]).filter((part) => part.index === index)
    expect(parts.map((part) => part.text).join('')).toBe(choice.text)
    expect(parts.at(-1).finish_reason).toBe(choice.finish_reason)
    for (const name of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'])
      expect(parts.flatMap((part) => part.logprobs?.[name] ?? [])).toEqual(choice.logprobs[name])
  }
})

test('one prompt that does not fit refuses all, and nothing runs', async () => {
  const { app, engine } = serve({ nCtx: 64, stepMs: 1 })
  const response = await post(app, '/v1/completions', { prompt: ['short', 'x'.repeat(100)] })
  expect(response.status).toBe(400)
  expect(engine.requests.every((request) => request.signal!.aborted)).toBe(true)
  expect(engine.stats().requestsRunning).toBe(0)
})
