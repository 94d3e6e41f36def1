import { afterAll, describe, expect, test } from 'vitest'
import { estimateMemory, hyperparametersOf } from '../../src/engine/estimate.ts'
import { load } from '../../src/engine/model.ts'
import { Runner } from '../../src/engine/runner.ts'
import { CAN_MAP_FILES } from '../../src/ggml/memory.ts'
import { F16 } from '../../src/ggml/types.ts'
import { openWeights } from '../../src/weights/open.ts'
import { synthesize, type SynthType } from '../../src/weights/synth.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'
import { TemporaryFolder } from '../support/reference.ts'

const OPTIONS = { nUbatch: 512, typeK: 'f16', typeV: 'f16' }

describe('what inspect says of memory is what a full context takes', async () => {
  const model = await load(undefined, { nCtx: 2048, nParallel: 1, nThreads: 1 })
  afterAll(() => model.close())

  test.each([[1024], [2048]])('%i tokens', async (nCtx) => {
    const { source } = model.engine
    const { weightBytes, cacheBytes, computeBytes } = estimateMemory(source, hyperparametersOf(source), { ...OPTIONS, nCtx })
    const prompt = Array.from({ length: nCtx - 1 }, (_, i) => (i * 7) % 4000)
    let peak = 0 // it is given back as soon as the prompt is read
    const watch = setInterval(() => (peak = Math.max(peak, model.engine.stats().computeBytes)), 1)
    const { usage } = await model.complete({ prompt, maxTokens: 2, ignoreEos: true, nCtx })
    clearInterval(watch)
    expect(cacheBytes).toBe(usage.attention.kv_bytes)
    expect(weightBytes).toBe(model.engine.stats().weightBytes)
    expect(computeBytes / peak).toBeGreaterThan(0.8)
    expect(computeBytes / peak).toBeLessThan(1.6)
  })
})

// Whether a type has a layout of its own, and what it takes there, is the processor's business: q4_0 has one on most.
describe.each<[SynthType]>([['f16'], ['q8_0'], ['q4_0'], ['q4_k']])('weights of %s, the output tied to the embedding', (type) => {
  const folder = new TemporaryFolder()
  const out = folder.file('tied.gguf')
  afterAll(() => folder[Symbol.dispose]())

  test('take what is said, in layouts of the processor or as they are', async () => {
    await synthesize({ like: 'smollm2-135m', type, out, layers: 1, vocab: 4096, tokenizerFrom: BUNDLED_GGUF })
    using source = openWeights(out)
    const fileBytes = [...source.tensors.values()].reduce((sum, { nBytes }) => sum + nBytes, 0)
    for (const repack of [true, false]) {
      const { weightBytes } = estimateMemory(source, hyperparametersOf(source), { ...OPTIONS, nCtx: 512, repack })
      using runner = await Runner.load(source, { nThreads: 1, cacheTypes: { k: F16, v: F16 }, repack })
      expect(weightBytes).toBe(runner.weightBytes)
      if (!repack && CAN_MAP_FILES) expect(weightBytes).toBe(fileBytes)
    }
  })
})
