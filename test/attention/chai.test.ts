import { describe, expect, it } from 'vitest'
import { F16, F32, typeId } from '../../src/ggml/types.ts'
import type { KvCache } from '../../src/kv/cache.ts'
import { N_LAYER, TestStack } from '../support/attention-stack.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import type { Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'
import { type RunnerSettings, withRunner } from '../support/runner.ts'

const T = 150
const x = normals(N_EMBD * T, 31)
const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 6, nHeadKv: 3, headDim: 64 },
]

/** softmax(q·kᵀ/√d) of a head for queries and keys of the first `n` tokens. */
function scores(layer: Oracle, h: number, n: number, isCausal: boolean): Float64Array[] {
  const kv = Math.floor(h / (layer.shape.nHead / layer.shape.nHeadKv))
  const keys = layer.k.slice(0, n).map((heads, t) => layer.rotate(heads[kv]!, t))
  return layer.q
    .slice(0, n)
    .map((heads, t) => layer.probabilities(layer.rotate(heads[h]!, t), keys.slice(0, isCausal ? t + 1 : n)))
}

/** methods.md §2.2, phase 2, in plain loops: average linkage of the cosine distance; the lowest head represents. */
function membership(layer: Oracle, count: number, isCausal: boolean): number[] {
  const { nHeadKv: G } = layer.shape
  const features = Array.from({ length: G }, (_, kv) =>
    layer
      .group(kv)
      .flatMap((h) => scores(layer, h, 5, isCausal).flatMap((row) => [...row, ...Array<number>(5 - row.length).fill(0)])),
  )
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
  const cosine = (a: number, b: number) =>
    dot(features[a]!, features[b]!) / Math.sqrt(dot(features[a]!, features[a]!) * dot(features[b]!, features[b]!))
  const groups = features.map((_, i) => [i])
  while (groups.length > count) {
    const pairs = groups.flatMap((a, i) => groups.slice(i + 1).map((b) => ({ a, b })))
    const distance = ({ a, b }: { a: number[]; b: number[] }) => {
      const all = a.flatMap((i) => b.map((j) => 1 - cosine(i, j)))
      return all.reduce((sum, value) => sum + value, 0) / all.length
    }
    const { a, b } = pairs.reduce((best, pair) => (distance(pair) < distance(best) ? pair : best))
    a.push(...b)
    groups.splice(groups.indexOf(b), 1)
  }
  return features.map((_, i) => Math.min(...groups.find((group) => group.includes(i))!))
}

/** methods.md §2.2, phases 2 and 3: O_h = A of the representative · V_h from the sixth token on. */
function chaiOracle(stack: ReturnType<TestStack['oracle']>, count: number, isCausal = true): Float64Array {
  return stack.stack((layer) => {
    const { nHead, nHeadKv } = layer.shape
    const group = nHead / nHeadKv
    const member = membership(layer, count, isCausal)
    const p = Array.from({ length: nHead }, (_, h) => scores(layer, h, T, true))
    return layer.layer((t, h) => {
      const kv = Math.floor(h / group)
      const from = t < 5 ? h : member[kv]! * group + (h % group)
      return layer.weigh(
        p[from]![t]!,
        layer.v.slice(0, t + 1).map((heads) => heads[kv]!),
      )
    })
  })
}

async function outputs(stack: TestStack, size: (at: number) => number, cache: KvCache = stack.newCache(1024), until = T) {
  const all: number[] = []
  for (let at = cache.nTokens; at < until;) {
    const n = Math.min(size(at), until - at, stack.attention.maxChunk(cache))
    all.push(...(await stack.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }]))[0]!)
    at += n
  }
  return all
}

describe.each(SHAPES)('chai, $nHead heads on $nHeadKv of $headDim', (shape) => {
  it.each([
    ['clusters=2', 2, true],
    ['clusters=1', 1, true],
    ['clusters=2,causal=false', 2, false],
  ] as const)('is what it says: %s', async (setting, count, isCausal) => {
    using stack = new TestStack(`chai:${setting}`, shape, F32)
    const expected = chaiOracle(stack.oracle(x), count, isCausal)
    // In long pieces by flash attention, in short ones by products, then token by token.
    for (const size of [() => T, (at: number) => (at < 100 ? 33 : 1), () => 1]) {
      expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    }
    expect(relativeError(expected, stack.oracle(x).dense())).toBeGreaterThan(0.1)
  })

  it('with as many clusters as heads it is dense, bit by bit', async () => {
    using stack = new TestStack('chai:ratio=1', shape, F16)
    using dense = new TestStack('dense', shape, F16)
    expect(await outputs(stack, (at) => (at < 90 ? 90 : 1))).toEqual(await outputs(dense, (at) => (at < 90 ? 90 : 1)))
  })

  it('keeps the keys of representatives, to the byte, and all values', async () => {
    const { nHeadKv: G, headDim: d } = shape
    using stack = new TestStack(`chai:clusters=1/${G}/2/1/2`, shape, F16)
    using cache = stack.newCache(4096)
    await outputs(stack, () => T, cache, 4)
    expect(cache.layers.map(({ k }) => k.layout.nHead)).toEqual(Array(N_LAYER).fill(G))
    await outputs(stack, () => T, cache, 5)
    const counts = [1, G, 2, 1, 2]
    expect(cache.layers.map(({ k }) => k.layout.nHead)).toEqual(counts)
    cache.append(4096 - 5)
    const bytes = (name: string) => cache.layers.reduce((sum, { stores }) => sum + (stores[name]?.bytesHeld(4096) ?? 0), 0)
    expect(bytes('k')).toBe(counts.reduce((a, b) => a + b) * 4096 * d * 2)
    expect(bytes('v')).toBe(N_LAYER * G * 4096 * d * 2)
    expect(bytes('first')).toBe(0)
    expect(cache.bytesHeld).toBe(bytes('k') + bytes('v'))
    expect(stack.attention.truncate(cache, 4)).toBe(false)
    expect(stack.attention.truncate(cache, 5)).toBe(true)
  })

  it('goes on from where it was cut back to', async () => {
    using stack = new TestStack('chai:ratio=0.5', shape, F32)
    using cache = stack.newCache(1024)
    const expected = await outputs(stack, () => 64, cache)
    expect(stack.attention.truncate(cache, 69)).toBe(true)
    expect(await outputs(stack, () => 64, cache)).toEqual(expected.slice(69 * N_EMBD))
  })

  it('counts what it reads: all values, and keys of clusters', async () => {
    using stack = new TestStack('chai:clusters=1', shape, F32)
    using cache = stack.newCache(1024)
    await outputs(stack, () => T, cache, 100)
    const { attention } = stack
    expect(attention.cost(cache, attention.facts(cache, 1)).read).toBeCloseTo((101 * N_LAYER * (1 + shape.nHeadKv)) / 2, 6)
  })
})

it.each(SHAPES)('with streaming, representatives see sinks and window: $nHead heads on $nHeadKv', async (shape) => {
  const [sink, window, count] = [4, 40, 2]
  using stack = new TestStack(`chai:clusters=${count}+streaming:sink=${sink},window=${window}`, shape, F32)
  const group = shape.nHead / shape.nHeadKv
  const expected = stack.oracle(x).stack((layer) => {
    const member = membership(layer, count, true)
    return layer.layer((t, h) => {
      const nDropped = Math.max(0, t - sink - window)
      const seen = [...Array(t + 1).keys()].filter((s) => s < sink || s >= sink + nDropped)
      const place = (s: number) => (s < sink ? s : s - nDropped)
      const kv = Math.floor(h / group)
      const from = t < 5 ? h : member[kv]! * group + (h % group)
      const keys = seen.map((s) => layer.rotate(layer.k[s]![Math.floor(from / group)]!, place(s)))
      return layer.weigh(
        layer.probabilities(layer.rotate(layer.q[t]![from]!, place(t)), keys),
        seen.map((s) => layer.v[s]![kv]!),
      )
    })
  })
  for (const size of [() => T, (at: number) => (at < 100 ? 33 : 1)]) {
    expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
  }
})

describe('heads with the same queries and keys, merged, give what dense gives', () => {
  /** Head 2 is head 0, and 3 is 1. */
  class Twins extends TestStack {
    protected override weightsOf(il: number) {
      const weights = super.weightsOf(il)
      for (const name of ['q', 'k'] as const) weights[name].copyWithin(2 * 32 * N_EMBD, 0, 2 * 32 * N_EMBD)
      return { ...weights, ...(this.shape.differs && { sinks: Float32Array.of(0.5, 2, 0.5, 2) }) }
    }
  }

  it.each([
    ['by flash attention', () => 64],
    ['by products', () => 33],
  ])('%s', async (_, size) => {
    using twins = new Twins('chai:clusters=2', SHAPES[0]!, F32)
    using dense = new Twins('dense', SHAPES[0]!, F32)
    const merged = await outputs(twins, size)
    expect(relativeError(merged, await outputs(dense, size))).toBeLessThan(1e-5)
    expect(relativeError(merged, twins.oracle(x).dense())).toBeLessThan(TOLERANCE.f32)
  })

  it.each([
    ['by flash attention', () => 64],
    ['by products', () => 33],
  ])('with windows, softcaps and sinks, %s', async (_, size) => {
    const differs = (il: number) => ({ softcap: 3, scale: 0.3, ...(il % 2 === 0 && { visible: { window: 20 } }) })
    using twins = new Twins('chai:clusters=2', { ...SHAPES[0]!, differs }, F32)
    using dense = new Twins('dense', { ...SHAPES[0]!, differs }, F32)
    expect(relativeError(await outputs(twins, size), await outputs(dense, size))).toBeLessThan(TOLERANCE.f32)
  })
})

describe('on a model', () => {
  const tokens = Int32Array.from({ length: 90 }, (_, i) => 5 + ((i * 7919) % 4000))

  /** Logits after each of the last ten; beside other sequences of a step, queries and keys are projected for all at once. */
  async function logits(setting: string, settings: RunnerSettings, isAlone = true): Promise<number[]> {
    return await withRunner(BUNDLED_GGUF, settings, async (runner) => {
      const sequences = (isAlone ? [0] : [0, 1]).map(() => runner.newSequence(tokens.length, setting))
      const { cache, attention } = sequences[0]!
      const all: number[] = []
      while (cache.nTokens < tokens.length) {
        const at = cache.nTokens
        const n = at < 80 ? Math.min(attention.maxChunk(cache), 80 - at) : 1
        const part = { tokens: tokens.subarray(at, at + n), logits: 'last' } as const
        const [some] = await runner.run(sequences.map((sequence) => ({ sequence, ...part })))
        if (at >= 80) all.push(...some!)
      }
      for (const sequence of sequences) sequence[Symbol.dispose]()
      return all
    })
  }

  it('rows of representatives are multiplied as they lie, or heads are picked from all, with the same result', async () => {
    const settings = { type: F32, cacheType: F32, repack: false }
    const alone = await logits('chai:clusters=3', settings)
    expect(relativeError(await logits('chai:clusters=3', settings, false), alone)).toBeLessThan(1e-3)
    expect(relativeError(alone, await logits('dense', settings))).toBeGreaterThan(0.3)
  })

  it.each([
    ['q8_0', 0.1],
    ['q4_0', 0.2],
  ] as const)('%s in a layout of the processor’s own, which may round in another way, too', async (name, tolerance) => {
    const plain = await logits('chai:clusters=3', { type: typeId(name), repack: false })
    expect(relativeError(await logits('chai:clusters=3', { type: typeId(name), repack: true }), plain)).toBeLessThan(tolerance)
  })
})

it.each([
  ['chai', 'it is no loaded model, so it needs clusters or ratio'],
  ['chai:clusters=9', 'a layer cannot have 9 clusters: it has 4 heads of keys'],
  ['chai:clusters=2/2', 'clusters are given for 2 layers, and it has 5'],
  ['chai:clusters=6x2', 'clusters are given for 6 layers, and it has 5'],
  ['chai:clusters=4x2/0', 'a layer cannot have 0 clusters'],
  ['chai:clusters=2+2', "'2'"],
  ['chai:clusters=two', 'clusters of all layers are written 8'],
  ['chai:clusters=2,ratio=0.5', 'give one of them'],
  ['chai:ratio=1.5', 'ratio is 1.5'],
  ['chai:ratio=0.5+h2o', 'chai and h2o cannot work together'],
  ['chai:ratio=0.5+sparq', 'chai and sparq cannot work together'],
  ['chai:ratio=0.5+sa', 'answer the same question'],
])('%s is refused', (setting, reason) => {
  expect(() => new TestStack(setting, SHAPES[0]!, F32)).toThrow(reason)
})
