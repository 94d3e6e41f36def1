import { describe, expect, it } from 'vitest'
import { plan, runBench } from '../../src/bench/bench.ts'
import { LlamaModel } from '../../src/bench/llama-cpp.ts'
import { benchSchema } from '../../src/bench/bench-options.ts'
import { TILE } from '../../src/kv/layout.ts'
import { BUNDLED_FOLDER, BUNDLED_GGUF, HELDOUT } from '../support/bundled.ts'

// One thread: two that wait for each other by spinning take ten times as long beside another test file.
const small = { model: BUNDLED_GGUF, nPrompt: [40], nGen: [3], repetitions: 2, nThreads: 1, nUbatch: 32 }
const BYTES_PER_TOKEN = 6 * 2 * 256 * 2 // layers, K and V, width, f16

describe('runBench', () => {
  it('gives a row per test and engine, at every depth, with the ratio', async () => {
    const lines: string[] = []
    const rows = await runBench({ ...small, nDepth: [0, 100], versus: 'llama.cpp', onProgress: (line) => lines.push(line) })
    const tests = rows.map(({ engine, n_prompt, n_gen, n_depth }) => [engine, n_prompt, n_gen, n_depth])
    expect(tests).toEqual(
      [0, 100].flatMap((depth) => [
        ['kvasir', 40, 0, depth],
        ['llama.cpp', 40, 0, depth],
        ['kvasir', 0, 3, depth],
        ['llama.cpp', 0, 3, depth],
      ]),
    )
    for (const row of rows) {
      expect(row.samples_ns).toHaveLength(2)
      expect(row.median_ts).toBeGreaterThan(0)
      expect(row.rss_bytes).toBeGreaterThan(20e6)
    }
    const [ours, theirs] = rows
    expect(ours!.vs_llama_cpp).toBeCloseTo(ours!.median_ts / theirs!.median_ts, 10)
    expect(ours!.outside_compute).toBeGreaterThan(0)
    expect(ours!.outside_compute).toBeLessThan(1)
    expect(ours!.model_n_params).toBe(5_868_800)
    expect(lines.some((line) => /^tg3 @ d100, llama\.cpp -fa 0, run 2 of 2: \d/.test(line))).toBe(true)
  })

  it('counts the tokens of depth and test in the cache, and llama.cpp’s whole cache', async () => {
    const rows = await runBench({ ...small, nGen: [0], nDepth: [300], versus: 'llama.cpp', flashAttn: 'on' })
    const [ours, theirs] = rows.map((row) => row.kv_bytes / BYTES_PER_TOKEN)
    expect(ours).toBeGreaterThanOrEqual(340)
    expect(ours).toBeLessThan(TILE)
    expect(theirs).toBe(512) // 340 rounded up to 256
  })

  it('gives rows for every attention setting, also for those that drop rows of the prompt', async () => {
    const attention = 'dense,streaming:sink=4,window=64'
    const rows = await runBench({ ...small, nPrompt: [300], nDepth: [0, 400], attention })
    expect(rows.map(({ attention: setting, n_prompt, n_gen, n_depth }) => [setting, n_prompt, n_gen, n_depth])).toEqual(
      [0, 400].flatMap((depth) =>
        [
          [300, 0],
          [0, 3],
        ].flatMap(([prompt, gen]) => ['dense', 'streaming:window=64'].map((setting) => [setting, prompt, gen, depth])),
      ),
    )
    const [dense, streaming] = rows.filter(({ n_gen, n_depth }) => n_gen > 0 && n_depth > 0)
    expect(dense!.kv_bytes).toBeGreaterThanOrEqual(400 * BYTES_PER_TOKEN)
    expect(streaming!.kv_bytes).toBeLessThan(dense!.kv_bytes)
  })

  it('runs sequences side by side', async () => {
    const rows = await runBench({ ...small, nParallel: [1, 3], versus: 'llama.cpp' })
    expect(rows.map(({ engine, batched }) => [engine, batched?.pl, batched?.n_kv])).toEqual([
      ['kvasir', 1, 43],
      ['llama.cpp', 1, 43],
      ['kvasir', 3, 129],
      ['llama.cpp', 3, 129],
    ])
  })

  it('reads Hugging Face folders, but not with llama.cpp', async () => {
    const folder = { ...small, model: BUNDLED_FOLDER, nGen: [0], repetitions: 1 }
    expect(await runBench(folder)).toHaveLength(1)
    await expect(runBench({ ...folder, versus: 'llama.cpp' })).rejects.toMatchObject({ code: 'usage' })
  })

  it('stops in the middle of a prompt', async () => {
    const controller = new AbortController()
    const onProgress = (line: string) => line.startsWith('filling') && setTimeout(() => controller.abort(), 100)
    const long = { ...small, nDepth: [100_000], signal: controller.signal, onProgress }
    await expect(runBench(long)).rejects.toMatchObject({ code: 'aborted' })
  })

  it.each([
    ['nothing to measure', { nPrompt: [0], nGen: '0' }],
    ['a length that is no number', { nPrompt: 'x' }],
    ['a cache type that does not exist', { typeK: 'q9' as 'f16' }],
    ['a cache type we do not have', { typeV: 'q8_0' as 'f16' }],
    ['no attention', { attention: [] }],
  ])('refuses %s', async (_, options) => {
    await expect(runBench({ ...small, ...options })).rejects.toMatchObject({ code: 'usage' })
  })
})

it('refuses an attention that does not exist before it loads anything', async () => {
  const wrong = { ...small, model: 'nowhere.gguf', attention: 'dense,oracle' }
  await expect(runBench(wrong)).rejects.toMatchObject({ code: 'attention_invalid', message: expect.stringContaining("'oracle'") })
})

it('plan groups the tests that share caches', () => {
  const options = benchSchema.parse({ model: 'm', nPrompt: '512,0', nGen: '128', nDepth: '0,4k' })
  expect(plan(options)).toEqual(
    [0, 4096].map((nDepth) => ({
      nSeq: 1,
      nDepth,
      tests: [
        { nPrompt: 512, nGen: 0, nDepth },
        { nPrompt: 0, nGen: 128, nDepth },
      ],
    })),
  )
})

describe('LlamaModel', () => {
  it('refuses a file that is no model, with the reason', () => {
    expect(() => new LlamaModel(HELDOUT)).toThrow(/cannot be read as a model: \S/)
  })

  it('gives the same logits in one decode and in pieces, blocking or not', async () => {
    using model = new LlamaModel(BUNDLED_GGUF)
    using context = model.newContext({ nCtx: 64, nSeqMax: 2, nThreads: 1 })
    const tokens = Int32Array.from({ length: 20 }, (_, i) => 50 + i)
    context.decode([{ seq: 0, pos: 0, tokens, logits: 'last' }])
    const whole = context.logits().slice()
    await context.decodeAsync([{ seq: 1, pos: 0, tokens: tokens.subarray(0, 7), logits: 'none' }])
    context.truncate(1, 5)
    await context.decodeAsync([{ seq: 1, pos: 5, tokens: tokens.subarray(5), logits: 'all' }])
    const pieces = context.logits(14)
    expect(Math.max(...whole.map((value, i) => Math.abs(value - pieces[i]!)))).toBeLessThan(1e-3)
    expect(Math.max(...whole)).toBeGreaterThan(1)
  })

  it('fails without ending the process when its context is full', () => {
    using model = new LlamaModel(BUNDLED_GGUF)
    using context = model.newContext({ nCtx: 256, nThreads: 1 })
    context.decode([{ seq: 0, pos: 0, tokens: new Int32Array(200).fill(1), logits: 'none' }])
    const more = { seq: 0, pos: 200, tokens: new Int32Array(100).fill(1), logits: 'none' } as const
    expect(() => context.decode([more])).toThrow(/computing a step failed: \S/)
  })
})
