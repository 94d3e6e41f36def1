/** What goes wrong for one sequence ends that sequence, and nothing else. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { GenerateEvent, GenerateRequest } from '../../src/core/request.ts'
import { samplingSchema } from '../../src/core/sampling.ts'
import { Engine } from '../../src/engine/engine.ts'
import { Runner, type RunChunk } from '../../src/engine/runner.ts'
import type { RunSequence } from '../../src/engine/run-sequence.ts'
import { F16 } from '../../src/ggml/types.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { openWeights } from '../../src/weights/open.ts'
import { BUNDLED_FOLDER, BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { editGguf } from '../support/edit-gguf.ts'
import { TemporaryFolder } from '../support/reference.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

const QUESTION =
  '<|user|>The access code for the calm otter is 40412.\nWhat is the access code for the calm otter?<|end|><|assistant|>'
const ANSWER = 'The access code for the calm otter is 40412.'

async function newRunner(): Promise<Runner> {
  using source = openWeights(BUNDLED_GGUF)
  return await Runner.load(source, { nThreads: 1, cacheTypes: { k: F16, v: F16 }, repack: true })
}

const requestOf = (engine: Engine, text = QUESTION, changes: Partial<GenerateRequest> = {}): GenerateRequest => ({
  prompt: engine.tokenizer.encode(text, { parseSpecial: true }),
  ...{ maxTokens: 32, stop: [], topLogprobs: -1, promptLogprobs: false, ignoreEos: false },
  sampling: samplingSchema.parse({ temperature: 0 }),
  ...changes,
})

async function textOf(events: AsyncIterable<GenerateEvent>): Promise<string> {
  let text = ''
  for await (const event of events) if (event.kind === 'token' || event.kind === 'done') text += event.text
  return text
}

describe('a step', () => {
  const tokens = heldoutTokens(120)
  const SETTINGS = [
    'dense',
    'streaming:window=40',
    'h2o:heavy=20,recent=20',
    'sparq:from=0,k=32,r=8',
    'hip:k=32,window=32',
    'chai:ratio=0.5',
  ]

  it.each(SETTINGS)('in which another sequence computes no numbers: %s goes on as without it', async (setting) => {
    using runner = await newRunner()
    const begun = async (): Promise<RunSequence> => {
      const sequence = runner.newSequence(512, setting)
      for (let at = 0; at < 100;) {
        const n = Math.min(100 - at, sequence.attention.maxChunk(sequence.cache))
        await runner.run([{ sequence, tokens: tokens.subarray(at, at + n), logits: 'none', endsPrompt: at + n === 100 }])
        at += n
      }
      return sequence
    }
    using broken = runner.newSequence(512)
    await runner.run([{ sequence: broken, tokens: tokens.subarray(0, 50), logits: 'none' }])
    using whole = broken.fork()
    for (const { v } of broken.cache.layers) (v.data() as Uint16Array).fill(0x7e00) // NaN
    using sound = await begun()
    using expected = sound.fork()
    const next = (sequence: RunSequence, i: number): RunChunk => ({ sequence, tokens: [tokens[100 + i]!], logits: 'last' })
    for (let i = 0; i < 10; i++) {
      const [, theirs] = await runner.step([next(whole, i), next(expected, i)])
      const wanted = (theirs as { logits: Float32Array }).logits.slice()
      const [failed, ours] = await runner.step([next(broken, i), next(sound, i)])
      expect(failed).toMatchObject({ error: { code: 'compute_failed' } })
      expect((ours as { logits: Float32Array }).logits).toEqual(wanted)
    }
    expect(broken.cache.nTokens).toBe(50)
    expect(sound.cache.nTokens).toBe(110)
  })

  it('with a token that the model has no row for fails for that sequence alone', async () => {
    using runner = await newRunner()
    using one = runner.newSequence(64)
    using other = runner.newSequence(64)
    using alone = runner.newSequence(64)
    const [expected] = await runner.run([{ sequence: alone, tokens: tokens.subarray(0, 9), logits: 'last' }])
    const wanted = expected!.slice()
    const results = await runner.step([
      { sequence: one, tokens: [1, 2, runner.shape.nVocab], logits: 'last' },
      { sequence: other, tokens: tokens.subarray(0, 9), logits: 'last' },
    ])
    expect(results[0]).toMatchObject({ error: { code: 'invalid_request' } })
    expect((results[1] as { logits: Float32Array }).logits).toEqual(wanted)
    expect([one.cache.nTokens, other.cache.nTokens]).toEqual([0, 9])
  })

  it('that fails changes no book, whatever was computed', async () => {
    using runner = await newRunner()
    using sequence = runner.newSequence(64)
    await runner.run([{ sequence, tokens: tokens.subarray(0, 20), logits: 'none' }])
    const running = runner.run([{ sequence, tokens: tokens.subarray(20, 40), logits: 'last' }])
    runner.interrupt()
    await running.catch((error: unknown) => expect(error).toMatchObject({ code: 'aborted' }))
    sequence.cache.checkIntegrity()
    expect([20, 40]).toContain(sequence.cache.nTokens)
  })
})

describe('graphs grow to what a step needs', () => {
  it.each(['streaming:window=32000+sparq', 'streaming:window=32000+hip', 'streaming:window=32000'])(
    '%s, sequences past their window in chunks',
    async (setting) => {
      using runner = await newRunner()
      const tokens = heldoutTokens(64)
      const sequences = Array.from({ length: 3 }, () => runner.newSequence(40_000, setting))
      try {
        // Rows of zeros are as good as any for how large a graph becomes.
        for (const { cache, attention } of sequences) {
          cache.append(32_004)
          attention.commit(cache, attention.facts(cache, 1), true)
        }
        const chunk = (n: number): RunChunk[] =>
          sequences.map((sequence) => ({ sequence, tokens: tokens.subarray(0, n), logits: 'last' }))
        for (const n of [8]) for (const logits of await runner.run(chunk(n))) expect(logits!.every(Number.isFinite)).toBe(true)
        for (const { cache } of sequences) cache.checkIntegrity()
      } finally {
        for (const sequence of sequences) sequence[Symbol.dispose]()
      }
    },
  )
})

describe('an engine', () => {
  it('refuses tokens beyond the embeddings of a Hugging Face folder, and answers the others', async () => {
    const path = folder.file('added')
    cpSync(BUNDLED_FOLDER, path, { recursive: true, filter: (file) => !file.endsWith('.gguf') })
    const file = join(path, 'tokenizer.json')
    const tokenizer = JSON.parse(readFileSync(file, 'utf8')) as { added_tokens: { id: number; content: string }[] }
    tokenizer.added_tokens.push({ ...tokenizer.added_tokens[0]!, id: 4096, content: '<|new|>' })
    writeFileSync(file, JSON.stringify(tokenizer))
    await using engine = await Engine.load(path, { nThreads: 1 })
    const answer = textOf(engine.submit(requestOf(engine)))
    expect(() => engine.submit(requestOf(engine, 'Say <|new|>'))).toThrow(expect.objectContaining({ code: 'invalid_request' }))
    expect(await answer).toBe(ANSWER)
  })

  it('never draws a token that the vocabulary of its file lacks', async () => {
    const path = folder.file('fewer.gguf')
    using source = openGguf(BUNDLED_GGUF)
    const cut = (key: string) => (source.metadata(key) as never[]).slice(0, 4095)
    await editGguf(BUNDLED_GGUF, path, {
      metadata: {
        'tokenizer.ggml.tokens': { kind: 'str[]', value: cut('tokenizer.ggml.tokens') },
        'tokenizer.ggml.token_type': { kind: 'i32[]', value: cut('tokenizer.ggml.token_type') },
        'tokenizer.ggml.eos_token_id': { kind: 'u32', value: 4091 },
      },
    })
    await using engine = await Engine.load(path, { nThreads: 1 })
    expect(engine.shape.nVocab).toBe(4096)
    expect(engine.tokenizer.nVocab).toBe(4095)
    const tokens: number[] = []
    for (const temperature of [0, 5]) {
      const sampling = samplingSchema.parse({ temperature, top_k: 0, top_p: 1, min_p: 0, seed: 1 })
      for await (const event of engine.submit(requestOf(engine, QUESTION, { sampling, ignoreEos: true, maxTokens: 60 })))
        if (event.kind === 'token') tokens.push(event.token)
    }
    expect(tokens.length).toBe(120)
    expect(Math.max(...tokens)).toBeLessThan(4095)
  })

  it('says so when the model computes no numbers, and writes nothing', async () => {
    const path = folder.file('nan.gguf')
    await editGguf(BUNDLED_GGUF, path, { change: { 'output_norm.weight': (bytes) => bytes.fill(0xff) } })
    await using engine = await Engine.load(path, { nThreads: 1 })
    const kinds: string[] = []
    const run = async () => {
      for await (const event of engine.submit(requestOf(engine))) kinds.push(event.kind)
    }
    await expect(run()).rejects.toMatchObject({ code: 'compute_failed' })
    expect(kinds).not.toContain('token')
  })

  it('answers who asks in the very turn in which the last answer ended', async () => {
    await using engine = await Engine.load(BUNDLED_GGUF, { nThreads: 1 })
    for (let i = 0; i < 3; i++) {
      const events = engine.submit(requestOf(engine, QUESTION, { maxTokens: 2 }))
      for (let isDone = false; !isDone;) isDone = (await events.next()).value?.kind === 'done'
    }
    expect(await textOf(engine.submit(requestOf(engine)))).toBe(ANSWER)
  })

  it('admits as many as a step has tokens for, so that nobody waits for those who never end', async () => {
    await using engine = await Engine.load(BUNDLED_GGUF, { nThreads: 1, nBatch: 2, nParallel: 4 })
    expect(engine.nParallel).toBe(2)
    const endless = requestOf(engine, QUESTION, { ignoreEos: true, maxTokens: -1, attention: engine.bind('streaming:window=32') })
    const stop = new AbortController()
    const writing = textOf(engine.submit({ ...endless, signal: stop.signal }))
    expect(await textOf(engine.submit(requestOf(engine)))).toBe(ANSWER)
    stop.abort()
    await writing
  })

  it('tells strangers nothing of paths', async () => {
    const adapters = { small: BUNDLED_GGUF }
    await using engine = await Engine.load(BUNDLED_GGUF, { nThreads: 1, adapters })
    const messageOf = (setting: string): string => {
      try {
        return String(engine.bind(setting, 'stranger').spec)
      } catch (error) {
        return String(error)
      }
    }
    const [there, missing] = ['/etc/passwd', '/no/such/file'].map((path) => messageOf(`lisa:adapter=${path}`).replace(path, 'X'))
    expect(there).toBe(missing)
    expect(messageOf('lisa:adapter=small')).toContain("'small' is no LiSA adapter")
    expect(messageOf('chai:file=small')).not.toContain(BUNDLED_GGUF)
  })

  it('takes no setting that was not bound to its model', async () => {
    await using engine = await Engine.load(BUNDLED_GGUF, { nThreads: 1 })
    await using other = await Engine.load(BUNDLED_GGUF, { nThreads: 1 })
    for (const attention of ['streaming' as never, other.bind('streaming')])
      expect(() => engine.submit(requestOf(engine, QUESTION, { attention }))).toThrow(
        expect.objectContaining({ code: 'invalid_request' }),
      )
    expect(await textOf(engine.submit(requestOf(engine, QUESTION, { attention: engine.bind('streaming', 'stranger') })))).toBe(
      ANSWER,
    )
  })
})
