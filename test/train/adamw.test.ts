import { afterAll, expect, test } from 'vitest'
import { Backend } from '../../src/ggml/backend.ts'
import { AdamW, gradientNorm } from '../../src/train/adamw.ts'
import { Parameters } from '../../src/train/parameters.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { normals } from '../support/random.ts'

const backend = new Backend(1)
afterAll(() => backend[Symbol.dispose]())

/** Algorithm 2 of arXiv 1711.05101 with ε outside of the root, in float64. */
function oracle(w: number[], gradients: readonly Float32Array[], { rate = 0.1, decay = 0, scale = 1 }): number[] {
  const [m, v] = [w.map(() => 0), w.map(() => 0)]
  let values = w
  for (const [t, gradient] of gradients.entries())
    values = values.map((x, i) => {
      const g = gradient[i]! * scale
      m[i] = 0.9 * m[i]! + 0.1 * g
      v[i] = 0.95 * v[i]! + 0.05 * g * g
      const [mHat, vHat] = [m[i]! / (1 - 0.9 ** (t + 1)), v[i]! / (1 - 0.95 ** (t + 1))]
      return x - rate * decay * x - (rate * mHat) / (Math.sqrt(vHat) + 1e-8)
    })
  return values
}

test('matrices and vectors go the steps of the paper, vectors without decay', async () => {
  using parameters = new Parameters(backend)
  const [matrix, vector] = [parameters.add('matrix', [6, 4]), parameters.add('vector', [6])]
  const frozen = parameters.add('frozen', [6, 4], false)
  for (const p of parameters.all()) p.data.set(normals(p.data.length, p.data.length))
  const before = parameters.all().map(({ data }) => [...data])
  const gradients = (n: number) => Array.from({ length: 5 }, (_, t) => normals(n, 10 + t))
  using optimiser = new AdamW(backend, parameters.all(), { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.3 })
  for (let t = 0; t < 5; t++) {
    for (const { trained, data } of [matrix, vector]) trained!.gradient.data.set(gradients(data.length)[t]!)
    await optimiser.step({ nDone: t, rate: 0.1, scale: 0.5 })
    expect(gradientNorm(parameters.all())).toBe(0)
  }
  const expected = [
    oracle(before[0]!, gradients(24), { decay: 0.3, scale: 0.5 }),
    oracle(before[1]!, gradients(6), { scale: 0.5 }),
  ]
  expect(relativeError(matrix.data, expected[0]!)).toBeLessThan(TOLERANCE.f32)
  expect(relativeError(vector.data, expected[1]!)).toBeLessThan(TOLERANCE.f32)
  expect([...frozen.data]).toEqual(before[2])
})

test('the norm is that of all gradients together', () => {
  using parameters = new Parameters(backend)
  parameters.add('a', [2]).trained!.gradient.data.set([1, 2])
  parameters.add('b', [2, 1]).trained!.gradient.data.set([4, 10])
  expect(gradientNorm(parameters.all())).toBe(11)
})
