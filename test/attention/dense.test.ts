import { describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { normals } from '../support/random.ts'

const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
  { nHead: 2, nHeadKv: 2, headDim: 128 },
]
const T = 331 // more than a tile, and odd
const x = normals(N_EMBD * T, 7)

async function inPieces(layer: TestLayer, sizes: (at: number) => number): Promise<Float32Array> {
  using cache = layer.newCache(512)
  const outputs: Float32Array[] = []
  for (let at = 0; at < T;) {
    const n = Math.min(sizes(at), T - at)
    outputs.push(...(await layer.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }])))
    at += n
  }
  cache.checkIntegrity()
  expect(cache.nTokens).toBe(T)
  return Float32Array.from(outputs.flatMap((o) => [...o]))
}

describe.each(SHAPES)('dense attention, $nHead heads on $nHeadKv of $headDim', (shape) => {
  let formula: Float64Array | undefined
  it.each([
    ['f32', F32],
    ['f16', F16],
  ] as const)('equals the formula in float64, over a %s cache, whatever the pieces', async (name, type) => {
    using layer = new TestLayer('dense', shape, type)
    const expected = (formula ??= layer.oracle(x).dense())
    const tolerance = TOLERANCE[name] * (name === 'f16' ? 4 : 1) // flash attention sums values in f16 too
    expect(relativeError(await inPieces(layer, () => T), expected), 'at once').toBeLessThan(tolerance)
    expect(relativeError(await inPieces(layer, (at) => (at < 200 ? 67 : 13)), expected), 'odd pieces').toBeLessThan(tolerance)
    expect(relativeError(await inPieces(layer, (at) => (at < 250 ? 250 : 1)), expected), 'token by token').toBeLessThan(tolerance)
  })

  it('gives a sequence the same alone and beside others', async () => {
    using layer = new TestLayer('dense', shape, F32)
    const take = (from: number, n: number) => x.subarray(from * N_EMBD, (from + n) * N_EMBD)
    using alone = layer.newCache(512)
    using left = layer.newCache(512)
    using right = layer.newCache(512)
    const [before] = await layer.attend([{ cache: alone, x: take(0, 70) }])
    const [after] = await layer.attend([{ cache: alone, x: take(70, 1) }])
    const [, beforeBeside] = await layer.attend([
      { cache: left, x: take(100, 5) },
      { cache: right, x: take(0, 70) },
    ])
    const [afterBeside] = await layer.attend([
      { cache: right, x: take(70, 1) },
      { cache: left, x: take(105, 1) },
    ])
    expect(relativeError(beforeBeside!, before!)).toBeLessThan(1e-5)
    expect(relativeError(afterBeside!, after!)).toBeLessThan(1e-5)
  })

  it('lets no earlier output see a later token', async () => {
    using layer = new TestLayer('dense', shape, F32)
    const changed = x.slice(0, 90 * N_EMBD)
    changed.fill(1, 80 * N_EMBD)
    using one = layer.newCache(256)
    using other = layer.newCache(256)
    const [a] = await layer.attend([{ cache: one, x: x.subarray(0, 90 * N_EMBD) }])
    const [b] = await layer.attend([{ cache: other, x: changed }])
    expect(a!.subarray(0, 80 * N_EMBD)).toEqual(b!.subarray(0, 80 * N_EMBD))
    expect(a!.subarray(80 * N_EMBD)).not.toEqual(b!.subarray(80 * N_EMBD))
  })
})
