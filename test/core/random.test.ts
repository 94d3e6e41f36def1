import { describe, expect, it } from 'vitest'
import { random, randomBits } from '../../src/core/random.ts'

const first = (next: () => number, n = 3) => Array.from({ length: n }, next)

describe('random', () => {
  it.each([
    [0, [1427488602, 1980682239, 456575201]],
    [1, [573063952, 3268221502, 703077755]],
    [2 ** 40, [2838698169, 2581631387, 481352493]],
  ])('gives for seed %d what it always gave', (seed, expected) => {
    expect(first(random(seed)).map((x) => x * 2 ** 32)).toEqual(expected)
  })

  it('draws a seed for -1', () => {
    expect(first(random(-1))).not.toEqual(first(random(-1)))
  })
})

describe('random bits', () => {
  it('are for one seed what they always were', () => {
    expect(first(randomBits(7))).toEqual([2917685297, 1525832735, 3836590155])
  })

  it('differ from the first number on for seeds that differ in one bit', () => {
    const numbers = Array.from({ length: 53 }, (_, i) => randomBits(2 ** i)())
    expect(new Set(numbers).size).toBe(53)
  })
})
