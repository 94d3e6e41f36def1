import { afterAll, describe, expect, test } from 'vitest'
import { estimateMemory } from '../../src/engine/estimate.ts'
import { load } from '../../src/engine/model.ts'

const OPTIONS = { nUbatch: 512, typeK: 'f16', typeV: 'f16' }

describe('what inspect says of memory is what a full context takes', async () => {
  const model = await load(undefined, { nCtx: 2048, nParallel: 1, nThreads: 1 })
  afterAll(() => model.close())

  test.each([[1024], [2048]])('%i tokens', async (nCtx) => {
    const { weightBytes, cacheBytes, computeBytes } = estimateMemory(model.engine.source, model.shape, { ...OPTIONS, nCtx })
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
