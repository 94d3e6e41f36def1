/**
 * A server that answers the web page as ours does, without a model: words are tokens, and the answer is what the test says.
 * It serves what a real one cannot be made to do on demand: to be slow, to be still loading, to break off.
 */
import type { AddressInfo } from 'node:net'
import { type ServerType, serve } from '@hono/node-server'
import { type Context, Hono } from 'hono'
import { stream } from 'hono/streaming'
import { AXIS_QUESTIONS, type MethodInfo, methodInfos } from '../../src/attention/catalogue.ts'
import type { MethodSetting } from '../../src/core/request.ts'
import { staticRoutes } from '../../src/server/static.ts'

export interface FakeOptions {
  /** The built page. */
  readonly folder: string
  answer: string
  msPerToken: number
  msPerChunk: number
  nCtx: number
  /** So many chats are refused with 503 first. */
  busyTimes: number
  /** The connection is closed after so many tokens of the answer. */
  cutAfter: number
  key: string
  /** What `/props` says of attention. */
  methods: readonly MethodInfo[]
  defaultAttention: readonly MethodSetting[]
  refusesAttention: boolean
}

export interface FakeOpenAi extends AsyncDisposable {
  readonly url: string
  readonly options: FakeOptions
  /** Bodies of the chats, as they came. */
  readonly chats: Record<string, unknown>[]
  /** Chats whose client left before the end. */
  left: number
}

interface Message {
  readonly role: string
  readonly content: string
}

const TOKENS_PER_CHUNK = 256

const wordsOf = (text: string): string[] => text.match(/\s*\S+|\s+$/g) ?? []
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export async function startFakeOpenAi(given: Pick<FakeOptions, 'folder'> & Partial<FakeOptions>): Promise<FakeOpenAi> {
  const options = {
    answer: 'Yes.',
    msPerToken: 1,
    msPerChunk: 1,
    nCtx: 4096,
    busyTimes: 0,
    cutAfter: Infinity,
    key: '',
    methods: methodInfos(),
    defaultAttention: [],
    refusesAttention: false,
    ...given,
  }
  const app = new Hono()
  const failure = (c: Context, status: 400 | 401 | 503, error: Record<string, unknown>) => c.json({ error }, status)
  app.get('/health', (c) => c.json({ status: 'ok' }))
  app.use('/v1/*', async (c, next) => {
    if (options.key && c.req.header('authorization') !== `Bearer ${options.key}`)
      return failure(c, 401, { type: 'authentication_error', message: 'missing or wrong API key' })
    return next()
  })
  app.get('/v1/models', (c) => c.json({ data: [{ id: 'fake' }] }))
  app.get('/props', (c) =>
    c.json({
      default_generation_settings: { n_ctx: options.nCtx, params: { temperature: 0.8, seed: -1 } },
      attention_methods: options.methods,
      attention_axes: AXIS_QUESTIONS,
      attention_default: options.defaultAttention,
    }),
  )
  app.get('/metrics', (c) => c.text('# TYPE kvasir_kv_cache_bytes gauge\nkvasir_kv_cache_bytes{tier="ram"} 1048576\n'))
  app.post('/tokenize', async (c) => {
    const { content } = await c.req.json<{ content: string }>()
    return c.json({ tokens: wordsOf(content).map((_, index) => index) })
  })
  app.post('/v1/chat/completions', async (c) => {
    const body = await c.req.json<{ messages: Message[] }>()
    fake.chats.push(body)
    if (options.busyTimes-- > 0) return failure(c, 503, { type: 'unavailable_error', message: 'the model is still loading' })
    const nPrompt = wordsOf(body.messages.map(({ content }) => content).join(' ')).length
    const tooLong = {
      code: 400,
      type: 'exceed_context_size_error',
      message: 'too long',
      n_prompt_tokens: nPrompt,
      n_ctx: options.nCtx,
    }
    const refusal = { code: 'attention_invalid', message: 'attention: streaming cannot serve this model: a test wants it' }
    if (options.refusesAttention) return failure(c, 400, { type: 'invalid_request_error', ...refusal })
    if (nPrompt >= options.nCtx) return failure(c, 400, tooLong)
    c.header('content-type', 'text/event-stream')
    return stream(c, async (out) => {
      const begin = performance.now()
      let isOpen = true
      out.onAbort(() => {
        isOpen = false
        fake.left++
      })
      const send = (fields: object): Promise<unknown> => out.write(`data: ${JSON.stringify(fields)}\n\n`)
      const delta = (content: string | null, finish_reason: string | null = null): object => ({
        choices: [{ index: 0, delta: { role: 'assistant', content }, finish_reason }],
      })
      for (let processed = 0; isOpen; processed = Math.min(nPrompt, processed + TOKENS_PER_CHUNK)) {
        const time_ms = performance.now() - begin
        await send({ ...delta(null), prompt_progress: { total: nPrompt, cache: 0, processed, time_ms } })
        await out.write(': ping\n\n')
        if (processed === nPrompt) break
        await pause(options.msPerChunk)
      }
      const prompt_ms = performance.now() - begin
      const words = wordsOf(options.answer)
      for (const [index, word] of words.entries()) {
        if (!isOpen) return
        if (index >= options.cutAfter) return
        await send(delta(word))
        await pause(options.msPerToken)
      }
      const timings = { prompt_ms, predicted_per_second: 1000 / options.msPerToken }
      const attention = {
        method: 'dense',
        keys_read: 1,
        density: 1,
        kept_tokens: 1,
        evicted_tokens: 0,
        kv_bytes: 2 ** 21,
        kv_bytes_dense: 2 ** 21,
      }
      await send({ ...delta(null, 'stop'), timings })
      await send({ choices: [], usage: { prompt_tokens: nPrompt, completion_tokens: words.length, attention } })
      await out.write('data: [DONE]\n\n')
    })
  })
  app.route('/', staticRoutes(options.folder))

  const server = await new Promise<ServerType>((resolve) => {
    const listening = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, () => resolve(listening))
  })
  const fake: FakeOpenAi = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    options,
    chats: [],
    left: 0,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve))
      if ('closeAllConnections' in server) server.closeAllConnections()
      await closed
    },
  }
  return fake
}
