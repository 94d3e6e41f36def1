import { afterAll, expect, test } from 'vitest'
import { Backend } from '../../src/ggml/backend.ts'
import type { Graph } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { F16, F32, I32 } from '../../src/ggml/types.ts'
import { Parameters } from '../../src/train/parameters.ts'
import { backward, gradientError, weighted } from '../support/gradients.ts'
import { normals } from '../support/random.ts'

const backend = new Backend(1)
afterAll(() => backend[Symbol.dispose]())

const ROPE = {
  mode: 0,
  nDims: 8,
  nCtxOrig: 64,
  freqBase: 100,
  freqScale: 1,
  extFactor: 0,
  attnFactor: 1,
  betaFast: 32,
  betaSlow: 1,
} as const

const causal = (g: Graph, n: number) =>
  g.input(F32, [n, n], (mask) => mask.forEach((_, i) => (mask[i] = i % n <= Math.floor(i / n) ? 0 : -Infinity)))
const numbers = (g: Graph, ...values: number[]) => g.input(I32, [values.length], (data) => data.set(values))

interface Case {
  readonly a: readonly number[]
  readonly b?: readonly number[]
  readonly y: (g: Graph, a: Tensor, b: Tensor) => Tensor
}

const CASES: { readonly [name: string]: Case } = {
  add: { a: [5, 3], b: [5, 3], y: (g, a, b) => g.add(a, b) },
  'add, the second repeated': { a: [5, 3, 2], b: [5], y: (g, a, b) => g.add(a, b) },
  sub: { a: [5, 3], b: [5, 3], y: (g, a, b) => g.sub(a, b) },
  mul: { a: [5, 3], b: [5, 3], y: (g, a, b) => g.mul(a, b) },
  'mul, the second repeated': { a: [5, 3, 2], b: [5, 1, 2], y: (g, a, b) => g.mul(a, b) },
  'mul with itself': { a: [5, 3], y: (g, a) => g.mul(a, a) },
  div: { a: [5, 3], b: [5, 3], y: (g, a, b) => g.div(a, g.scaleBias(g.sqr(b), 1, 2)) },
  'scale and bias': { a: [5, 3], y: (g, a) => g.scaleBias(a, 0.3, 0.7) },
  sqr: { a: [5, 3], y: (g, a) => g.sqr(a) },
  'sqrt and log': { a: [5, 3], y: (g, a) => g.log(g.sqrt(g.scaleBias(g.sqr(a), 1, 1))) },
  silu: { a: [5, 3], y: (g, a) => g.silu(a) },
  'swiglu, split': { a: [5, 3], b: [5, 3], y: (g, a, b) => g.swigluSplit(a, b) },
  'rms norm': { a: [8, 3], y: (g, a) => g.rmsNorm(a, 1e-5) },
  'sum of rows': { a: [5, 3, 2], y: (g, a) => g.sumRows(a) },
  repeat: { a: [5, 1, 2], y: (g, a) => g.repeat(a, 5, 3, 4) },
  mul_mat: { a: [6, 4], b: [6, 5], y: (g, a, b) => g.mulMat(a, b) },
  'mul_mat, heads that share': { a: [6, 4, 2], b: [6, 5, 6], y: (g, a, b) => g.mulMat(a, b) },
  'mul_mat of permuted factors': {
    a: [6, 2, 4],
    b: [6, 4, 5],
    y: (g, a, b) => g.mulMat(g.permute(a, 0, 2, 1, 3), g.permute(b, 0, 2, 1, 3)),
  },
  'out of a transposed copy': { a: [6, 4], b: [4, 5], y: (g, a, b) => g.mulMat(g.cont(g.permute(a, 1, 0, 2, 3)), b) },
  'permute, cont, reshape': { a: [3, 4, 5], y: (g, a) => g.sqr(g.reshape(g.cont(g.permute(a, 2, 0, 1, 3)), 12, 5)) },
  'two views of one': {
    a: [6, 4],
    y: (g, a) => g.mul(g.cont(g.view(a, [6, 2, 1, 1], [24, 96, 96])), g.cont(g.view(a, [6, 2, 1, 1], [24, 96, 96], 48))),
  },
  'get_rows, one of them twice': { a: [5, 6], y: (g, a) => g.sqr(g.getRows(a, numbers(g, 4, 0, 4, 2))) },
  'rope, pairs': { a: [8, 2, 3], y: (g, a) => g.ropeExt(a, numbers(g, 0, 5, 9), null, ROPE) },
  'rope, halves': { a: [8, 2, 3], y: (g, a) => g.ropeExt(a, numbers(g, 0, 5, 9), null, { ...ROPE, mode: 2 }) },
  'soft_max with scale and mask': { a: [5, 5, 2], y: (g, a) => g.softMaxExt(a, causal(g, 5), 0.7) },
  copies: { a: [5, 3], y: (g, a) => g.mul(a, g.sqr(g.cast(a, F32))) },
}

test.each(Object.entries(CASES))('the gradient of %s is that of differences', async (_, { a, b, y }) => {
  using parameters = new Parameters(backend)
  const pa = parameters.add('a', a)
  pa.data.set(normals(pa.data.length, 1))
  const pb = b ? parameters.add('b', b) : pa
  if (b) pb.data.set(normals(pb.data.length, 2))
  const record = (g: Graph) => weighted(g, y(g, pa.tensor, pb.tensor))
  const { error, worst } = await gradientError(backend, parameters.all(), { record })
  expect(error, worst).toBeLessThan(1e-3)
})

test('the gradient of the cross-entropy is that of differences, for one right token and for probabilities', async () => {
  using parameters = new Parameters(backend)
  const logits = parameters.add('logits', [7, 4])
  logits.data.set(normals(28, 3))
  const target = (j: number, i: number) => (j % 2 === 0 ? (i === j ? 1 : 0) : (i + 1) / 28) // columns sum to 1
  const record = (g: Graph) =>
    g.crossEntropyLoss(
      logits.tensor,
      g.input(F32, [7, 4], (data) => data.forEach((_, k) => (data[k] = target(Math.floor(k / 7), k % 7)))),
    )
  const { error, worst } = await gradientError(backend, [logits], { record })
  expect(error, worst).toBeLessThan(1e-3)
})

test('gradients add up over passes, with their weights', async () => {
  using parameters = new Parameters(backend)
  const p = parameters.add('p', [3])
  const record = (g: Graph) => g.sum(g.scale(p.tensor, 2))
  await backward(backend, [p], record)
  await backward(backend, [p], record)
  expect([...p.trained!.gradient.data]).toEqual([4, 4, 4])
})

test('nothing flows through a constant twin, nor into a frozen parameter', async () => {
  using parameters = new Parameters(backend)
  const [p, frozen] = [parameters.add('p', [3]), parameters.add('frozen', [3], false)]
  p.data.set([1, 2, 3])
  frozen.data.fill(5)
  await backward(backend, parameters.all(), (g) => g.sum(g.mul(g.mul(p.tensor, p.constant), frozen.tensor)))
  expect([...p.trained!.gradient.data]).toEqual([5, 10, 15])
  expect(frozen.trained).toBeNull()
})

test.each<[string, (g: Graph, p: Tensor) => Tensor]>([
  ['CONCAT', (g, p) => g.concat(p, p, 1)],
  ['FLOOR', (g, p) => g.floor(p)],
  ['ADD.*in place', (g, p) => g.addInplace(g.scale(p, 2), p)],
  ['SUB.*repeated', (g, p) => g.sub(g.scale(p, 2), g.reshape(g.sumRows(g.reshape(p, 2, 4)), 4, 1))],
  [
    'FLASH_ATTN_EXT',
    (g, p) => {
      const x = g.reshape(p, 4, 2)
      return g.flashAttnExt(x, g.cast(x, F16), g.cast(x, F16), null, { scale: 1, softcap: null, sinks: null })
    },
  ],
  ['SOFT_MAX.*operand 1', (g, p) => g.softMaxExt(p, p, 1)],
])('what ggml cannot differentiate is an error, not the end of the process: %s', async (message, y) => {
  using parameters = new Parameters(backend)
  const p = parameters.add('p', [4, 2])
  const failed = backward(backend, [p], (g) => g.sum(g.cont(y(g, p.tensor))))
  await expect(failed).rejects.toThrow(new RegExp(message))
})

test('a parameter that the loss does not depend on is an error that names it', async () => {
  using parameters = new Parameters(backend)
  const [p] = [parameters.add('p', [3]), parameters.add('idle', [3])]
  await expect(backward(backend, parameters.all(), (g) => g.sum(p.tensor))).rejects.toThrow(/depend on idle/)
})
