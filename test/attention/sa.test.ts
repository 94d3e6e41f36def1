import { describe, expect, it } from 'vitest'
import { attentionFor } from '../../src/attention/spec.ts'
import { type LayerShape, layerShapes } from '../../src/core/shape.ts'
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
function probabilities(layer: Oracle, window = Infinity): Float64Array[][] {
  const k = layer.k.map((heads, t) => heads.map((head) => layer.rotate(head, t)))
  const kvOf = (h: number) => Math.floor(h / (layer.shape.nHead / layer.shape.nHeadKv))
  return layer.q.map((heads, t) =>
    heads.map((q, h) => {
      const keys = k.slice(Math.max(0, t + 1 - window), t + 1).map((row) => row[kvOf(h)]!)
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
  const { attention } = stack
  expect(attention.cost(cache, attention.facts(cache, 1)).read).toBe(100 * 4 * (3 + 2 / 2))
})

it('sa reads prompts in pieces whose probabilities fit in memory', () => {
  using stack = new TestStack('sa', SHAPES[0]!, F32)
  using cache = stack.newCache(2 ** 17)
  expect(stack.attention.maxChunk(cache)).toBe(512)
  cache.append(2 ** 16)
  expect(stack.attention.maxChunk(cache) * 2 ** 16 * 4 * 4).toBeLessThan(2 ** 28)
  expect(stack.attention.maxChunk(cache)).toBeGreaterThan(200)
})

/** Layers that see some tokens only: five of six. */
const windowed = (window: number, every = 6, from = 0) => ({
  ...SHAPES[1]!,
  differs: (il: number) => ((il + from) % every === every - 1 ? {} : { visible: { window } }),
})

describe('sa where layers see the last tokens only', () => {
  it('shares among layers that see the same', async () => {
    const [window, shared] = [40, [1, 2, 4]]
    using stack = new TestStack('sa:layers=1-2/4', windowed(window, 100), F32)
    let p: Float64Array[][] = []
    const expected = stack.oracle(x).stack((layer, il) => {
      if (!shared.includes(il)) p = probabilities(layer, window)
      return layer.layer((t, h) => {
        const values = layer.v.slice(Math.max(0, t + 1 - window), t + 1)
        return layer.weigh(
          p[t]![h]!,
          values.map((heads) => heads[Math.floor(h / 4)]!),
        )
      })
    })
    for (const size of [() => T, (at: number) => (at < 100 ? 67 : 1)]) {
      expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    }
  })

  it('reads from the tile on where the window begins', async () => {
    using stack = new TestStack('sa:layers=2-3', windowed(40, 100), F32)
    const rows = normals(N_EMBD * 1100, 7)
    const outputAfter = async (first: number) => {
      using cache = stack.newCache(2048)
      for (let at = first; at < 1099; at += 220) {
        await stack.attend([{ cache, x: rows.subarray(at * N_EMBD, Math.min(1099, at + 220) * N_EMBD) }])
      }
      return (await stack.attend([{ cache, x: rows.subarray(1099 * N_EMBD) }]))[0]!
    }
    // Through five layers the last token sees no farther, and rotation knows distances only.
    expect(relativeError(await outputAfter(0), await outputAfter(1099 - 5 * 40))).toBeLessThan(TOLERANCE.f32)
  })

  it.each([
    ['auto', 0, 'layer 4 sees the last 9 tokens, and layer 3 sees all tokens, and no other layer near is like the one before it'],
    ['1-3', 0, 'layer 3 sees all tokens, and layer 0 sees the last 9 tokens, whose attention it would take'],
    ['3', 1, 'layer 3 sees the last 9 tokens, and layer 2 sees all tokens'],
  ])('refuses layers %s from %i on', (layers, from, reason) => {
    expect(() => new TestStack({ method: 'sa', layers }, windowed(9, 4, from), F32)).toThrow(reason)
  })
})

it('auto takes those layers of the span that are like the one before', () => {
  const any = { arch: 'x', nLayer: 34, nEmbd: 64, nHead: 4, nHeadKv: 2, headDim: 32, nFf: 1, nVocab: 1, nCtxTrain: 1 }
  const storesOf = (differs: (il: number) => Partial<LayerShape>) => {
    const { layers } = attentionFor('sa', { ...any, layers: layerShapes(any, differs) }).layout({ k: F32, v: F32 })
    return [...layers.keys()].filter((il) => !layers[il]!['k'])
  }
  expect(storesOf(() => ({}))).toEqual([24, 25, 26, 27, 28])
  expect(storesOf((il) => (il % 6 === 5 ? {} : { visible: { window: 512 } }))).toEqual([25, 26, 27, 28])
  expect(storesOf((il) => (il === 26 ? { nHeadKv: 4 } : {}))).toEqual([24, 25])
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

it.each(['sa', 'sa:layers=none', 'drop', 'chai:ratio=0.5', 'lisa:adapter=none'])(
  '%s is refused where layers share already',
  (setting) => {
    const sharing = { reads: [0, 3, 3, 3, 4], forceNodiag: false, forwardPasses: 1, backwardPasses: 1 }
    const shared = { ...SHAPES[0]!, sharing }
    expect(() => new TestStack(setting, shared, F32)).toThrow('share keys and values already: layer 1 reads those of layer 3')
    const borrowed = { ...SHAPES[0]!, differs: (il: number) => (il === 4 ? { kvSource: 2 } : {}) }
    expect(() => new TestStack(setting, borrowed, F32)).toThrow('share keys and values already: layer 4 reads those of layer 2')
  },
)
