import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { samplingSchema } from '../../src/core/sampling.ts'
import { logprobOf } from '../../src/engine/logprobs.ts'
import { random } from '../../src/core/random.ts'
import { Sampler, topK } from '../../src/engine/sampler.ts'

const params = (changes: object = {}) =>
  samplingSchema.parse({ temperature: 1, top_k: 0, top_p: 1, min_p: 0, seed: 1, ...changes })
const logits = (...values: number[]) => Float32Array.from(values)

/** How often each token is drawn. */
function draws(sampler: Sampler, values: Float32Array, n: number): number[] {
  const counts = Array.from(values, () => 0)
  for (let i = 0; i < n; i++) counts[sampler.sample(values.slice())]!++
  return counts
}

describe('Sampler', () => {
  it('takes the most likely token at temperature 0, of equals the first', () => {
    expect(new Sampler(params({ temperature: 0 })).sample(logits(1, 3, 3, 2))).toBe(1)
  })

  it('draws as often as the probabilities say', () => {
    const counts = draws(new Sampler(params()), logits(0, Math.log(2), Math.log(5)), 8000)
    for (const [token, share] of [1 / 8, 2 / 8, 5 / 8].entries()) expect(counts[token]! / 8000).toBeCloseTo(share, 1)
  })

  it('draws the same for the same seed, and something else for another', () => {
    const text = (seed: number) => {
      const sampler = new Sampler(params({ seed }))
      return Array.from({ length: 20 }, () => sampler.sample(new Float32Array(50))).join()
    }
    expect(text(7)).toBe(text(7))
    expect(text(7)).not.toBe(text(8))
    expect(text(-1)).not.toBe(text(-1))
  })

  it.each([
    ['top_k 2', { top_k: 2 }, [0, 3]],
    ['top_p 0.7', { top_p: 0.7 }, [0, 3]],
    ['top_p 0', { top_p: 0 }, [3]],
    ['min_p 0.3', { min_p: 0.3 }, [0, 3]],
    ['min_p 1', { min_p: 1 }, [3]],
    ['a bias that bans', { logit_bias: { 3: -100 } }, [0, 1, 2]],
    ['a bias that forces', { logit_bias: { 1: 100 } }, [1]],
    ['a bias on a token that does not exist', { logit_bias: { 99: 5 } }, [0, 1, 2, 3]],
    ['a tiny temperature', { temperature: 0.01 }, [3]],
  ])('%s leaves the right candidates', (_, changes, expected) => {
    const counts = draws(new Sampler(params(changes)), logits(1, 0, 0, 2), 2000) // shares 0.21, 0.08, 0.08, 0.58… e-based
    expect([...counts.keys()].filter((token) => counts[token]! > 0)).toEqual(expected)
  })

  it.each([
    ['repeat_penalty', { repeat_penalty: 2 }, [1, -2, 3]],
    ['presence_penalty', { presence_penalty: 1.5 }, [0.5, -2.5, 3]],
    ['frequency_penalty', { frequency_penalty: 0.5 }, [1, -1.5, 3]],
    ['nothing, beyond repeat_last_n', { presence_penalty: 1, repeat_last_n: 0 }, [2, -1, 3]],
  ])('%s changes the logits of recent tokens', (_, changes, expected) => {
    const sampler = new Sampler(params({ temperature: 0, ...changes }))
    for (const token of [0, 0, 1]) sampler.accept(token)
    const values = logits(2, -1, 3)
    sampler.sample(values)
    expect([...values]).toEqual(expected)
  })

  it('never chooses banned tokens', () => {
    expect(draws(new Sampler(params(), [0, 2]), logits(9, 0, 9), 50)).toEqual([0, 50, 0])
  })
})

describe('topK', () => {
  it('gives what sorting everything gives', () => {
    const values = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 60 })
    fc.assert(
      fc.property(values, fc.integer({ min: 1, max: 70 }), (list, k) => {
        const data = Float32Array.from(list)
        const sorted = [...data.keys()].sort((a, b) => data[b]! - data[a]! || a - b)
        expect([...topK(data, k)]).toEqual(sorted.slice(0, k))
      }),
    )
  })
})

describe('logprobOf', () => {
  it('normalises, and lists the most likely first', () => {
    const { logprob, top } = logprobOf(logits(0, Math.log(3), Math.log(4)), 1, 2)
    expect(Math.exp(logprob)).toBeCloseTo(3 / 8, 6)
    expect(top.map(({ token }) => token)).toEqual([2, 1])
    expect(top.map(({ logprob }) => Math.exp(logprob))[0]).toBeCloseTo(0.5, 6)
  })
})

describe('random', () => {
  it('is uniform in [0, 1)', () => {
    const next = random(3)
    const tenths = Array.from({ length: 10 }, () => 0)
    for (let i = 0; i < 20_000; i++) tenths[Math.floor(next() * 10)]!++
    for (const count of tenths) expect(Math.abs(count - 2000)).toBeLessThan(250)
  })
})
