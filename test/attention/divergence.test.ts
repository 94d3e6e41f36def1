import { describe, expect, it } from 'vitest'
import { divergence } from '../support/divergence.ts'

const logits = (...p: number[]) => Float32Array.from(p, (x) => Math.log(x) + 7)

describe('how far two distributions are apart', () => {
  const [p, q] = [logits(1 / 2, 1 / 3, 1 / 6), logits(1 / 6, 1 / 2, 1 / 3)]

  it('is Σ p · ln(p / q), which differs by direction', () => {
    const expected = (1 / 2) * Math.log(3) + (1 / 3) * Math.log(2 / 3) + (1 / 6) * Math.log(1 / 2)
    const reversed = (1 / 6) * Math.log(1 / 3) + (1 / 2) * Math.log(3 / 2) + (1 / 3) * Math.log(2)
    expect(divergence(p, q, 0).kl).toBeCloseTo(expected, 6)
    expect(divergence(q, p, 0).kl).toBeCloseTo(reversed, 6)
    expect(Math.abs(expected - reversed)).toBeGreaterThan(0.01)
  })

  it('is 0 from itself, and knows nothing of what is added to all logits', () => {
    expect(divergence(p, p, 0).kl).toBe(0)
    expect(
      divergence(
        p,
        p.map((x) => x - 30),
        0,
      ).kl,
    ).toBeCloseTo(0, 5)
  })

  it("takes the token's probability from the second, and compares the likeliest", () => {
    expect(divergence(p, q, 2).logProbability).toBeCloseTo(Math.log(1 / 3), 6)
    expect(divergence(p, q, 2).isSameTop).toBe(false)
    expect(divergence(p, logits(0.4, 0.3, 0.3), 2).isSameTop).toBe(true)
  })
})
