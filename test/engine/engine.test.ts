import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { GenerateEvent, GenerateRequest, GenerateResult } from '../../src/core/request.ts'
import { samplingSchema } from '../../src/core/sampling.ts'
import { Engine, type EngineOptions } from '../../src/engine/engine.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'

const QUESTION =
  '<|user|>The access code for the calm otter is 40412.\nWhat is the access code for the calm otter?<|end|><|assistant|>'

let engine: Engine
beforeAll(async () => {
  engine = await load({ nParallel: 3, nCtx: 512 })
})
afterAll(() => engine[Symbol.asyncDispose]())

function load(options: EngineOptions): Promise<Engine> {
  return Engine.load(BUNDLED_GGUF, { nThreads: 1, ...options })
}

function request(changes: Partial<GenerateRequest> & { text?: string } = {}): GenerateRequest {
  const { text = QUESTION, ...rest } = changes
  return {
    prompt: engine.tokenizer.encode(text, { parseSpecial: true }),
    maxTokens: 32,
    stop: [],
    sampling: samplingSchema.parse({ temperature: 0 }),
    topLogprobs: -1,
    promptLogprobs: false,
    ignoreEos: false,
    ...rest,
  }
}

interface Answer {
  readonly text: string
  readonly tokens: number[]
  readonly events: GenerateEvent[]
  readonly result: GenerateResult
}

async function answer(of: Engine, what: GenerateRequest): Promise<Answer> {
  const events: GenerateEvent[] = []
  for await (const event of of.submit(what)) events.push(event)
  const done = events.at(-1)!
  if (done.kind !== 'done') throw new Error('no end')
  const text = events.map((e) => (e.kind === 'token' || e.kind === 'done' ? e.text : '')).join('')
  return { text, tokens: events.flatMap((e) => (e.kind === 'token' ? [e.token] : [])), events, result: done.result }
}

describe('Engine', () => {
  it('answers, and says what it cost', async () => {
    const { text, result } = await answer(engine, request())
    expect(text).toBe('The access code for the calm otter is 40412.')
    expect(result.stopReason).toBe('stop')
    const { prompt_tokens: prompt, completion_tokens: completion, attention } = result.usage
    expect(prompt).toBe(request().prompt.length)
    const stored = prompt + completion - 1 // the last token is not fed back
    expect(attention).toMatchObject({ method: 'dense', density: 1, kept_tokens: stored, evicted_tokens: 0 })
    expect(attention.keys_read).toBe((stored * (stored + 1)) / 2)
    expect(attention.kv_bytes).toBe(attention.kv_bytes_dense)
    expect(result.timings).toMatchObject({ cache_n: 0, prompt_n: prompt, predicted_n: completion })
  })

  it('answers the same whatever the size of its steps', async () => {
    const long = request({ text: `${'Nora keeps the lamp in the dusty attic. '.repeat(12)}${QUESTION}`, maxTokens: 12 })
    const expected = (await answer(engine, long)).tokens
    await using small = await load({ nUbatch: 7, nCtx: 512 })
    expect((await answer(small, long)).tokens).toEqual(expected)
  })

  it('runs more requests than it has places, each as if alone', async () => {
    const codes = [10_111, 22_222, 30_333, 44_044, 51_515, 60_006, 71_717]
    const asked = codes.map((code) => request({ text: QUESTION.replace('40412', String(code)) }))
    const answers = await Promise.all(asked.map((what) => answer(engine, what)))
    expect(answers.map(({ text }) => text)).toEqual(codes.map((code) => `The access code for the calm otter is ${code}.`))
    expect(engine.stats()).toMatchObject({ requestsRunning: 0, requestsWaiting: 0, kvBytes: 0 })
  })

  it.each([
    ['by the signal', (abort: AbortController) => void setTimeout(() => abort.abort(), 30)],
    ['before it began', (abort: AbortController) => abort.abort()],
  ])('stops %s, keeps what it has, and frees its memory', async (_, stop) => {
    const abort = new AbortController()
    stop(abort)
    const { result } = await answer(engine, request({ maxTokens: 400, ignoreEos: true, signal: abort.signal }))
    expect(result.stopReason).toBe('aborted')
    expect(result.usage.completion_tokens).toBeLessThan(400)
    expect(engine.stats()).toMatchObject({ requestsRunning: 0, kvBytes: 0 })
  })

  it('interrupts a step nobody waits for', async () => {
    await using big = await load({ nCtx: 4096, nUbatch: 2048 })
    const abort = new AbortController()
    const running = answer(big, request({ prompt: new Int32Array(4000).fill(7), signal: abort.signal }))
    await new Promise((resolve) => setTimeout(resolve, 100)) // within the first step
    abort.abort()
    const { result } = await running
    expect(result).toMatchObject({ stopReason: 'aborted', timings: { prompt_n: 0 } })
    expect((await answer(big, request())).text).toContain('40412') // and the next one is not
  })

  it('frees the sequence of a reader who leaves', async () => {
    for await (const event of engine.submit(request({ maxTokens: 400, ignoreEos: true }))) if (event.kind === 'token') break
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(engine.stats()).toMatchObject({ requestsRunning: 0, kvBytes: 0 })
  })

  it('refuses a prompt that leaves no room, with both numbers', () => {
    const error = expect.objectContaining({ code: 'exceed_context_size_error', fields: { n_prompt_tokens: 512, n_ctx: 512 } })
    expect(() => engine.submit(request({ prompt: new Int32Array(512).fill(5) }))).toThrow(error)
    expect(() => engine.submit(request({ nCtx: 20 }))).toThrow(expect.objectContaining({ code: 'exceed_context_size_error' }))
    expect(() => engine.submit(request({ prompt: new Int32Array(0) }))).toThrow('empty')
  })

  it('ends when the context is full', async () => {
    const { result } = await answer(engine, request({ maxTokens: -1, ignoreEos: true, nCtx: 64 }))
    expect(result.stopReason).toBe('length')
    expect(result.usage.attention.kept_tokens).toBe(64)
  })

  it('fails one request over a token that does not exist, and goes on', async () => {
    await expect(answer(engine, request({ prompt: Int32Array.of(5, 4096) }))).rejects.toMatchObject({ code: 'invalid_request' })
    expect((await answer(engine, request())).text).toContain('40412')
  })

  it('ends at a stop string and leaves it out', async () => {
    const { text, result } = await answer(engine, request({ stop: ['otter is'] }))
    expect(text).toBe('The access code for the calm ')
    expect(result).toMatchObject({ stopReason: 'stop', stoppingWord: 'otter is' })
  })

  it('reports log-probabilities of the answer and of the prompt', async () => {
    const { events } = await answer(engine, request({ topLogprobs: 3, promptLogprobs: true, maxTokens: 2 }))
    const prompt = events.find((event) => event.kind === 'prompt')!.logprobs
    expect(prompt).toHaveLength(request().prompt.length)
    expect(prompt[0]).toBeNull()
    expect(prompt.slice(1).map((each) => each!.token)).toEqual([...request().prompt.slice(1)])
    for (const event of events) {
      if (event.kind !== 'token') continue
      expect(event.logprob!.top).toHaveLength(3)
      expect(event.logprob!.top[0]!.token).toBe(event.token) // greedy
      expect(event.logprob!.logprob).toBeLessThanOrEqual(0)
    }
  })

  it('scores a prompt without generating', async () => {
    const { result, tokens } = await answer(engine, request({ promptLogprobs: true, topLogprobs: 0, maxTokens: 0 }))
    expect(tokens).toEqual([])
    expect(result).toMatchObject({ stopReason: 'length', usage: { completion_tokens: 0 } })
  })

  it('ends what runs when it is closed, and takes nothing more', async () => {
    const closing = await load({ nCtx: 512 })
    const running = answer(closing, request({ maxTokens: 400, ignoreEos: true }))
    await new Promise((resolve) => setTimeout(resolve, 20))
    await closing[Symbol.asyncDispose]()
    expect((await running).result.stopReason).toBe('aborted')
    expect(() => closing.submit(request())).toThrow(expect.objectContaining({ code: 'closed' }))
  })

  it.each([
    ['an absurd context', { nCtx: -5 }],
    ['no threads', { nThreads: 0 }],
    ['an unknown type', { type: 'q9_9' }],
    ['a cache type we do not store', { typeK: 'q4_0' }],
  ])('refuses %s before it loads anything', async (_, options) => {
    await expect(Engine.load('/nowhere', options)).rejects.toMatchObject({ code: 'usage' })
  })
})
