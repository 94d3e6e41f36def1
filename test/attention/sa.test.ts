import { describe, expect, it } from 'vitest'
import { F32 } from '../../src/ggml/types.ts'
import { TestStack } from '../support/attention-stack.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import type { Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

const T = 150
const x = normals(N_EMBD * T, 31)
const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
]

/** P of every query and head. */
function probabilities(layer: Oracle): Float64Array[][] {
  const k = layer.k.map((heads, t) => heads.map((head) => layer.rotate(head, t)))
  const kvOf = (h: number) => Math.floor(h / (layer.shape.nHead / layer.shape.nHeadKv))
  return layer.q.map((heads, t) =>
    heads.map((q, h) => {
      const keys = k.slice(0, t + 1).map((row) => row[kvOf(h)]!)
      return layer.probabilities(layer.rotate(q, t), keys)
    }),
  )
}

/** methods.md §10: P_l := P of the last layer that does not share, O = P · V_l. */
function saOracle(stack: ReturnType<TestStack['oracle']>, shared: readonly number[]): Float64Array {
  let p: Float64Array[][] = []
  return stack.stack((layer, il) => {
    if (!shared.includes(il)) p = probabilities(layer)
    return layer.layer((t, h) => {
      const kv = Math.floor(h / (layer.shape.nHead / layer.shape.nHeadKv))
      return layer.weigh(
        p[t]![h]!,
        layer.v.slice(0, t + 1).map((heads) => heads[kv]!),
      )
    })
  })
}

async function outputs(stack: TestStack, size: (at: number) => number): Promise<number[]> {
  using cache = stack.newCache(1024)
  const all: number[] = []
  for (let at = 0; at < T;) {
    const n = Math.min(size(at), T - at)
    all.push(...(await stack.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }]))[0]!)
    at += n
  }
  return all
}

describe.each(SHAPES)('sa, $nHead heads on $nHeadKv of $headDim', (shape) => {
  it.each([
    ['2-3', [2, 3]],
    ['1-4', [1, 2, 3, 4]],
    ['1/3-4', [1, 3, 4]],
    ['auto', [4]],
  ])('is what it says: layers %s', async (layers, shared) => {
    using stack = new TestStack({ method: 'sa', layers }, shape, F32)
    const expected = saOracle(stack.oracle(x), shared)
    for (const size of [() => T, (at: number) => (at < 100 ? 67 : 1)]) {
      expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    }
    expect(relativeError(expected, stack.oracle(x).dense())).toBeGreaterThan(0.1)
  })

  it('keeps no keys in the span: half of a layer’s bytes', () => {
    using dense = new TestStack('dense', shape, F32)
    using stack = new TestStack('sa:layers=2-3', shape, F32)
    using cache = stack.newCache(1024)
    using whole = dense.newCache(1024)
    expect(cache.layers.map(({ stores }) => Object.keys(stores).join())).toEqual(['k,v', 'k,v', 'v', 'v', 'k,v'])
    for (const each of [cache, whole]) each.append(1024)
    expect(cache.bytesHeld).toBe(0.8 * whole.bytesHeld)
  })
})

it('sa counts values alone as half of what is read', () => {
  using stack = new TestStack('sa:layers=2-3', SHAPES[0]!, F32)
  using cache = stack.newCache(1024)
  cache.append(99)
  expect(stack.attention.keysRead(cache, 1)).toBe(100 * 4 * (3 + 2 / 2))
})

it('sa reads prompts in pieces whose probabilities fit in memory', () => {
  using stack = new TestStack('sa', SHAPES[0]!, F32)
  using cache = stack.newCache(2 ** 17)
  expect(stack.attention.mostTokens(cache)).toBe(512)
  cache.append(2 ** 16)
  expect(stack.attention.mostTokens(cache) * 2 ** 16 * 4 * 4).toBeLessThan(2 ** 28)
  expect(stack.attention.mostTokens(cache)).toBeGreaterThan(200)
})

it.each([
  ['sa:layers=0-2', 'layer 0 has none before it'],
  ['sa:layers=3-9', 'it has no layer 5: its 5 layers are 0 to 4'],
  ['sa:layers=3..4', 'spans of layers are written 10-20'],
  ['sa+h2o', 'sa uses rows of one layer in another, and h2o keeps other rows in each'],
  ['sa+drop', 'answer the same question'],
])('%s is refused', (setting, reason) => {
  expect(() => new TestStack(setting, SHAPES[0]!, F32)).toThrow(reason)
})
