import { describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { TestStack } from '../support/attention-stack.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { normals } from '../support/random.ts'
import { withRunner } from '../support/runner.ts'

const T = 120
const x = normals(N_EMBD * T, 41)
const SHAPE = { nHead: 8, nHeadKv: 2, headDim: 64 }

describe('drop', () => {
  it.each([
    ['1/3', [1, 3]],
    ['0-2', [0, 1, 2]],
    ['auto', [3, 4]],
    ['4', [4]],
  ])('adds nothing in layers %s', async (layers, dropped) => {
    using stack = new TestStack({ method: 'drop', layers }, SHAPE, F32)
    const expected = stack.oracle(x).stack((layer, il) => (dropped.includes(il) ? null : layer.dense()))
    using cache = stack.newCache(1024)
    const prompt = await stack.attend([{ cache, x: x.subarray(0, 100 * N_EMBD) }])
    const rest = await stack.attend([{ cache, x: x.subarray(100 * N_EMBD) }])
    expect(relativeError([...prompt[0]!, ...rest[0]!], expected)).toBeLessThan(TOLERANCE.f32)
    cache.checkIntegrity()
  })

  it('keeps nothing of a dropped layer, and reads nothing', () => {
    using stack = new TestStack('drop:layers=0/3', SHAPE, F16)
    using cache = stack.newCache(1024)
    expect(cache.layers.map(({ stores }) => Object.keys(stores).join())).toEqual(['', 'k,v', 'k,v', '', 'k,v'])
    cache.append(1024)
    expect(cache.bytesHeld).toBe(3 * 2 * 1024 * 2 * 64 * 2)
    const { attention } = stack
    expect(attention.cost(cache, attention.facts(cache, 1)).read).toBe(3 * 2 * 1025)
    cache.truncate(10)
    expect(cache.nTokens).toBe(10)
  })

  it.each([
    ['drop:layers=0-4', 'no layer would attend to anything'],
    ['drop:layers=5', 'it has no layer 5'],
  ])('%s is refused', (setting, reason) => {
    expect(() => new TestStack(setting, SHAPE, F32)).toThrow(reason)
  })
})

it('sequences of different settings in one step get what they get alone', async () => {
  await withRunner(BUNDLED_GGUF, { cacheType: F32 }, async (runner) => {
    const tokens = heldoutTokens(40)
    const settings = ['drop', 'dense', 'sa', 'drop:layers=5', 'drop:layers=0/5+streaming:window=8', 'sa:layers=1-5']
    const alone: Float32Array[] = []
    for (const setting of settings) {
      using sequence = runner.newSequence(64, setting)
      await runner.run([{ sequence, tokens: tokens.subarray(0, 39), logits: 'none' }])
      const [logits] = await runner.run([{ sequence, tokens: tokens.subarray(39), logits: 'last' }])
      alone.push(logits!.slice())
    }
    const sequences = settings.map((setting) => runner.newSequence(64, setting))
    await runner.run(sequences.map((sequence) => ({ sequence, tokens: tokens.subarray(0, 39), logits: 'none' })))
    const together = await runner.run(sequences.map((sequence) => ({ sequence, tokens: tokens.subarray(39), logits: 'last' })))
    for (const [i, setting] of settings.entries()) {
      expect(relativeError(together[i]!, alone[i]!), setting).toBeLessThan(TOLERANCE.f16)
      if (setting !== 'dense') expect(relativeError(alone[i]!, alone[1]!), setting).toBeGreaterThan(0.01)
      sequences[i]![Symbol.dispose]()
    }
  })
})
