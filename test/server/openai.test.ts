/** The official client over a socket, as users run it. */
import OpenAI from 'openai'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { setLogLevel } from '../../src/core/log.ts'
import { startServer, type RunningServer } from '../../src/server/serve.ts'
import { FakeEngine } from '../support/fake-engine.ts'
import { SOON } from '../support/http.ts'

const engine = new FakeEngine({ script: () => 'good day<end>', nCtx: 200, prefillSteps: 3, stepMs: 1 })
let server: RunningServer
let client: OpenAI

beforeAll(async () => {
  setLogLevel('silent')
  server = await startServer({ port: 0, apiKeys: ['secret'], load: async () => engine })
  await server.ready
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'secret', maxRetries: 0 })
})
afterAll(() => server.close())

const chat = { model: 'any', messages: [{ role: 'user' as const, content: 'hi' }] }

test('chat', async () => {
  const reply = await client.chat.completions.create(chat)
  expect(reply.choices[0]!.message.content).toBe('good day')
  expect(reply.usage).toMatchObject({ prompt_tokens: 20, completion_tokens: 9 })
})

test('chat, streamed with usage', async () => {
  const stream = await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } })
  let text = ''
  let usage: OpenAI.CompletionUsage | null | undefined
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    usage = chunk.usage
  }
  expect(text).toBe('good day')
  expect(usage).toMatchObject({ total_tokens: 29, attention: { method: 'dense' } })
})

test('the client’s own accumulation of a stream, with several choices and logprobs', async () => {
  const stream = client.chat.completions.stream({ ...chat, n: 2, logprobs: true, top_logprobs: 1 })
  const { choices } = await stream.finalChatCompletion()
  expect(choices.map((choice) => [choice.message.content, choice.finish_reason])).toEqual([
    ['good day', 'stop'],
    ['good day', 'stop'],
  ])
  expect(choices[1]!.logprobs!.content!.map(({ token }) => token).join('')).toBe('good day')
})

test('completions, whole and streamed', async () => {
  const reply = await client.completions.create({ model: 'any', prompt: ['a', 'b'], logprobs: 1, echo: true })
  expect(reply.choices.map((choice) => choice.text)).toEqual(['agood day', 'bgood day'])
  expect(reply.choices[0]!.logprobs!.tokens!.join('')).toBe('agood day')
  let text = ''
  for await (const chunk of await client.completions.create({ model: 'any', prompt: 'a', stream: true }))
    text += chunk.choices[0]!.text
  expect(text).toBe('good day')
})

test('models', async () => {
  const ids: string[] = []
  for await (const model of client.models.list()) ids.push(model.id)
  expect(ids).toEqual(['fake'])
  expect(await client.models.retrieve('fake')).toMatchObject({ object: 'model', owned_by: 'kvasir' })
})

const bad = (fields: object) => client.chat.completions.create({ ...chat, ...fields } as never)

test('errors arrive as the client’s own classes, with our fields', async () => {
  const invalid = await bad({ temperature: -5 }).catch((error: unknown) => error)
  expect(invalid).toBeInstanceOf(OpenAI.BadRequestError)
  expect(invalid).toMatchObject({ param: 'temperature', type: 'invalid_request_error', code: 'invalid_request' })

  const long = await bad({ messages: [{ role: 'user', content: 'x'.repeat(500) }] }).catch((error: unknown) => error)
  expect(long).toBeInstanceOf(OpenAI.BadRequestError)
  expect(long).toMatchObject({ type: 'exceed_context_size_error', error: { n_prompt_tokens: 518, n_ctx: 200 } })

  const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'wrong', maxRetries: 0 })
  await expect(stranger.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError)
  await expect(client.models.retrieve('other')).rejects.toBeInstanceOf(OpenAI.NotFoundError)
})

test('a long prompt that is refused before streaming is an error, not a stream', async () => {
  const error = await bad({ messages: [{ role: 'user', content: 'x'.repeat(500) }], stream: true }).catch(
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(OpenAI.BadRequestError)
})

test('aborting a stream in the client frees the sequence', async () => {
  const stream = await client.chat.completions.create({ ...chat, stream: true, max_tokens: 100 })
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break
  await expect.poll(() => engine.stats().requestsRunning, SOON).toBe(0)
})

test('a failure in the middle of a stream is thrown by the client', async () => {
  const failing = new FakeEngine({ failAt: 3 })
  await using other = await startServer({ port: 0, load: async () => failing })
  await other.ready
  const user = new OpenAI({ baseURL: `${other.url}/v1`, apiKey: '-', maxRetries: 0 })
  let text = ''
  const reading = (async () => {
    for await (const chunk of await user.chat.completions.create({ ...chat, stream: true }))
      text += chunk.choices[0]?.delta.content ?? ''
  })()
  await expect(reading).rejects.toMatchObject({ code: 'compute_failed' })
  expect(text).toBe('aaa')
})
