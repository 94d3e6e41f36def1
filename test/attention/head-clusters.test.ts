import { describe, expect, it } from 'vitest'
import { clusterHeads, CLUSTERINGS, gramOf, kMeans } from '../../src/attention/share/chai/head-clusters.ts'
import { normals } from '../support/random.ts'

const N = 9
const DIMS = 7
const features = Array.from({ length: N }, (_, i) => Float64Array.from(normals(DIMS, i + 1)))

/** Σ ‖x - mean of its group‖², from the features themselves. */
function inertia(of: readonly number[]): number {
  return features.reduce((sum, x, i) => {
    const members = features.filter((_, j) => of[j] === of[i])
    return (
      sum + x.reduce((square, value, at) => square + (value - members.reduce((m, y) => m + y[at]! / members.length, 0)) ** 2, 0)
    )
  }, 0)
}

describe('k-means from products alone', () => {
  const results = kMeans(gramOf(features), N)

  it('tells what it leaves, which is never more with more groups, and nothing with one each', () => {
    for (const [i, { of, inertia: left }] of results.entries()) {
      expect(left).toBeCloseTo(inertia(of), 9)
      expect(new Set(of).size).toBe(i + 1)
      if (i > 0) expect(left).toBeLessThanOrEqual(results[i - 1]!.inertia + 1e-12)
    }
    expect(results.at(-1)!.inertia).toBeCloseTo(0, 9)
  })

  it('leaves no head that another mean is nearer to, but for heads that are alone', () => {
    for (const { of } of results) {
      for (let i = 0; i < N; i++) {
        if (of.filter((group) => group === of[i]).length === 1) continue
        const distance = (group: number) => {
          const members = features.filter((_, j) => of[j] === group)
          return features[i]!.reduce(
            (sum, value, at) => sum + (value - members.reduce((m, y) => m + y[at]! / members.length, 0)) ** 2,
            0,
          )
        }
        for (const group of new Set(of)) expect(distance(of[i]!)).toBeLessThanOrEqual(distance(group) + 1e-9)
      }
    }
  })
})

describe.each(CLUSTERINGS)('%s', (how) => {
  it.each(Array.from({ length: N }, (_, i) => i + 1))('%d groups are that many, each represented by its lowest head', (count) => {
    const { heads, of } = clusterHeads(gramOf(features), count, how)
    expect(heads).toHaveLength(count)
    expect(heads).toEqual([...heads].sort((a, b) => a - b))
    for (const cluster of of) expect(heads[cluster]).toBe(of.indexOf(cluster))
  })

  it('finds heads that are the same, and goes on where all are', () => {
    const two = [0, 1, 0, 1, 1].map((i) => features[i]!)
    expect(clusterHeads(gramOf(two), 2, how)).toEqual({ heads: [0, 1], of: [0, 1, 0, 1, 1] })
    const same = gramOf(Array.from({ length: 5 }, () => features[0]!))
    expect(clusterHeads(same, 3, how).heads).toHaveLength(3)
    expect(clusterHeads(gramOf(Array.from({ length: 4 }, () => new Float64Array(3))), 2, how).heads).toHaveLength(2)
  })
})
