import { describe, expect, it, vi } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import type { KvCache } from '../../src/kv/cache.ts'
import { residentTotal } from '../../src/kv/layout.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { TestStack } from '../support/attention-stack.ts'
import { type TestShape, N_EMBD } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import type { Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'
import { mappedResidentBytes } from '../support/smaps.ts'

const T = 331
const x = normals(N_EMBD * T, 31)
const tokens = (from: number, to: number) => x.subarray(from * N_EMBD, to * N_EMBD)
const SHAPES: TestShape[] = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
  { nHead: 6, nHeadKv: 3, headDim: 64, sinks: true, differs: () => ({ scale: 0.5, softcap: 1, dV: 32 }) },
]

interface Budget {
  readonly heavy: number
  readonly recent: number
  readonly aggregate: 'sum' | 'max'
}

/** Tokens read in one go, after which keys may leave: prompts, and single tokens that are decoded. */
type Segments = readonly number[]
const decoded = (n: number): number[] => Array.from({ length: n }, () => 1)

/** methods.md §7, real drop, in float64: outputs f64[nEmbd, T], and per KV head the kept positions with their scores. */
function h2oOracle(oracle: Oracle, segments: Segments, { heavy, recent, aggregate }: Budget) {
  const { nHead, nHeadKv } = oracle.shape
  const keys = oracle.k.map((heads, t) => heads.map((head) => oracle.rotate(head, t)))
  // Per KV head: position → what each query head of the group gave it so far.
  const kept = Array.from({ length: nHeadKv }, () => new Map<number, number[]>())
  const outputs: Float64Array[][] = []
  const score = (each: readonly number[]) => (aggregate === 'max' ? Math.max(...each) : each.reduce((a, b) => a + b, 0))
  let t = 0
  for (const n of segments) {
    for (const end = t + n; t < end; t++) {
      const heads: Float64Array[] = []
      for (const [kv, scores] of kept.entries()) {
        scores.set(
          t,
          oracle.group(kv).map(() => 0),
        )
        const seen = [...scores.keys()]
        for (const [i, h] of oracle.group(kv).entries()) {
          const p = oracle.probabilities(
            oracle.rotate(oracle.q[t]![h]!, t),
            seen.map((position) => keys[position]![kv]!),
            h,
          )
          for (const [j, position] of seen.entries()) scores.get(position)![i]! += p[j]!
          heads[h] = oracle.weigh(
            p,
            seen.map((position) => oracle.v[position]![kv]!),
          )
        }
      }
      outputs.push(heads)
    }
    for (const [kv, scores] of kept.entries()) {
      const all = [...scores.entries()]
      if (all.length <= heavy + recent) continue
      const older = all.slice(0, all.length - recent)
      const hitters = older.sort(([, a], [, b]) => score(b) - score(a)).slice(0, heavy)
      const newest = recent === 0 ? [] : all.slice(-recent)
      kept[kv] = new Map([...hitters.sort(([a], [b]) => a - b), ...newest])
    }
  }
  const held = kept.map((scores) => new Map([...scores].map(([position, each]) => [position, score(each)])))
  expect(outputs[0]!.length).toBe(nHead)
  return { outputs: oracle.layer((at, h) => outputs[at]![h]!), held }
}

async function run(layer: TestLayer, cache: KvCache, segments: Segments, piece = Infinity): Promise<number[]> {
  const outputs: number[] = []
  let at = 0
  for (const n of segments) {
    for (const end = at + n; at < end;) {
      const next = Math.min(end, at + piece)
      const [o] = await layer.attend([{ cache, x: tokens(at, next) }], next === end)
      outputs.push(...o!)
      at = next
      cache.checkIntegrity()
    }
  }
  return outputs
}

/** Kept positions of a KV head with their scores, read from the cache's memory. */
function scoresOf(cache: KvCache, head: number): Map<number, number> {
  const { stores, rows } = cache.layers[0]!
  const { width } = stores['score']!.layout
  const data = stores['score']!.data()
  const map = rows[head]!
  return new Map(
    Array.from({ length: map.nRows }, (_, rank) => {
      const row = map.row(rank)
      const at = (head * cache.capacity + row) * width
      return [map.position(row), Math.max(...data.subarray(at, at + width))]
    }),
  )
}

const spec = ({ heavy, recent, aggregate }: Budget) => `h2o:heavy=${heavy},recent=${recent},aggregate=${aggregate}`

describe.each(SHAPES)('h2o, $nHead heads on $nHeadKv of $headDim', (shape) => {
  it.each([
    ['a prompt at once', [301, ...decoded(30)], Infinity],
    ['a prompt in odd pieces', [301, ...decoded(30)], 67],
    ['token by token', decoded(T), Infinity],
    ['a prompt shorter than the budget', [20, ...decoded(T - 20)], Infinity],
    ['a second prompt after some tokens', [120, ...decoded(40), 141, ...decoded(30)], 64],
  ] as const)('is what it says: %s', async (_, segments, piece) => {
    for (const budget of [
      { heavy: 30, recent: 20, aggregate: 'sum' },
      { heavy: 30, recent: 20, aggregate: 'max' },
      { heavy: 40, recent: 0, aggregate: 'sum' },
    ] as const) {
      using layer = new TestLayer(spec(budget), shape, F32)
      using cache = layer.newCache(512)
      const { outputs, held } = h2oOracle(layer.oracle(x), segments, budget)
      const actual = await run(layer, cache, segments, piece)
      for (const [head, expected] of held.entries()) {
        const scores = scoresOf(cache, head)
        expect([...scores.keys()], spec(budget)).toEqual([...expected.keys()])
        expect(scores.size).toBe(budget.heavy + budget.recent)
        expect(relativeError([...scores.values()], [...expected.values()])).toBeLessThan(TOLERANCE.f32)
      }
      expect(relativeError(actual, outputs), spec(budget)).toBeLessThan(TOLERANCE.f32)
    }
  })

  it('is a sliding window without heavy hitters', async () => {
    using layer = new TestLayer('h2o:heavy=0,recent=40', shape, F32)
    using cache = layer.newCache(512)
    await run(layer, cache, [200, ...decoded(50)])
    const window = Array.from({ length: 40 }, (_, i) => 210 + i)
    for (const head of cache.layers[0]!.rows.keys()) expect([...scoresOf(cache, head).keys()]).toEqual(window)
    const oracle = layer.oracle(tokens(0, 251))
    const keys = oracle.k.map((heads, t) => heads.map((head) => oracle.rotate(head, t)))
    const expected = oracle.token((h) => {
      const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
      const seen = [...window, 250]
      const p = oracle.probabilities(
        oracle.rotate(oracle.q[250]![h]!, 250),
        seen.map((position) => keys[position]![kv]!),
        h,
      )
      return oracle.weigh(
        p,
        seen.map((position) => oracle.v[position]![kv]!),
      )
    })
    const [actual] = await layer.attend([{ cache, x: tokens(250, 251) }])
    expect(relativeError(actual!, expected)).toBeLessThan(TOLERANCE.f32)
  })

  it('does not count a step twice that failed', async () => {
    using layer = new TestLayer('h2o:heavy=30,recent=20', shape, F32)
    using cache = layer.newCache(512)
    using other = layer.newCache(512)
    const segments = [100, ...decoded(20)]
    await run(layer, cache, segments)
    await run(layer, other, segments)
    const append = vi.spyOn(cache, 'append').mockImplementation(() => {
      throw new Error('failed')
    })
    await expect(layer.attend([{ cache, x: tokens(200, 260) }])).rejects.toThrow('failed')
    append.mockRestore()
    const next = { x: tokens(120, 121) }
    expect(await layer.attend([{ cache, ...next }])).toEqual(await layer.attend([{ cache: other, ...next }]))
    for (const head of cache.layers[0]!.rows.keys()) expect(scoresOf(cache, head)).toEqual(scoresOf(other, head))
  })
})

describe('h2o', () => {
  const many: TestShape = { nHead: 60, nHeadKv: 5, headDim: 16 } // three KV heads, then two; queries by 64
  it.each([
    ['', many],
    [' in layers with softcap and sinks', { ...many, sinks: true, differs: () => ({ scale: 0.5, softcap: 1 }) } as TestShape],
  ])('reads prompts in blocks of heads and queries, which do not show%s', async (_, shape) => {
    const n = 700
    const long = normals(N_EMBD * n, 37)
    using layer = new TestLayer('h2o:budget=1000', shape, F32)
    using dense = new TestLayer('dense', shape, F32)
    using whole = layer.newCache(1024)
    using pieces = layer.newCache(1024)
    using other = dense.newCache(1024)
    const [actual] = await layer.attend([{ cache: whole, x: long }])
    const [expected] = await dense.attend([{ cache: other, x: long }])
    expect(relativeError(actual!, expected!)).toBeLessThan(TOLERANCE.f32)
    for (let at = 0; at < n; at += 50) {
      await layer.attend([{ cache: pieces, x: long.subarray(at * N_EMBD, (at + 50) * N_EMBD) }], at + 50 === n)
    }
    for (let head = 0; head < shape.nHeadKv; head++) {
      const scores = [...scoresOf(whole, head).values()]
      expect(relativeError(scores, [...scoresOf(pieces, head).values()])).toBeLessThan(TOLERANCE.f32)
      const given = scores.reduce((a, b) => a + b, 0)
      if (shape.sinks) expect(given).toBeLessThan(12 * n - 1)
      else expect(given).toBeCloseTo(12 * n, 0) // every query gives away 1
    }
  })

  const shape = { nHead: 8, nHeadKv: 4, headDim: 64 }
  const long = normals(N_EMBD * 1500, 41)

  async function keptAfter(setting: string, type = F32): Promise<KvCache> {
    using layer = new TestLayer(setting, shape, type)
    const cache = layer.newCache(4096)
    for (let at = 0; at < 1500; at += 500) {
      const x = long.subarray(at * N_EMBD, (at + 500) * N_EMBD)
      await layer.attend([{ cache, x }], at === 1000)
    }
    for (let i = 0; i < 3; i++) await layer.attend([{ cache, x: tokens(i, i + 1) }])
    return cache
  }

  it.each([
    ['h2o', 300],
    ['h2o:budget=10%', 150],
    ['h2o:budget=33.3%', 499],
    ['h2o:budget=100', 100],
    ['h2o:budget=100,recent=10', 100],
    ['h2o:heavy=7,recent=5', 13],
    ['h2o:budget=0.01%', 2],
  ])('%s holds so many of 1500, with the current one', async (setting, n) => {
    using cache = await keptAfter(setting)
    const { nRows, highWater, nSeen } = cache.rows
    expect([nRows, highWater, nSeen]).toEqual([n - 1, n, 1503])
  })

  it.skipIf(process.platform !== 'linux').each([
    [F32, '2MiB'],
    [F16, '700KiB'],
    [F16, '1024KiB'],
  ])('fills the size it is given, and no more (type %i, %s)', async (type, size) => {
    using cache = await keptAfter(`h2o:budget=${size}`, type)
    const bytes = Number.parseInt(size, 10) * (size.endsWith('KiB') ? 2 ** 10 : 2 ** 20)
    // One row more would not fit.
    const { k, v, stores } = cache.layers[0]!
    const score = stores['score']!.layout
    const layout = { layers: [{ k: k.layout, v: v.layout, score, fresh: score }] }
    expect(cache.bytesHeld).toBe(residentTotal(layout, cache.rows.highWater))
    expect(cache.bytesHeld).toBeLessThanOrEqual(bytes)
    expect(residentTotal(layout, cache.rows.highWater + 1)).toBeGreaterThan(bytes)
    expect(mappedResidentBytes(cache)).toBeLessThanOrEqual(cache.bytesHeld)
    expect(mappedResidentBytes(cache)).toBeGreaterThan(0.98 * cache.bytesHeld)
  })

  it.each([
    ['h2o:heavy=0,recent=0', 'nothing would be kept'],
    ['h2o:budget=100,heavy=50,recent=50', 'leave it out'],
    ['h2o:budget=20%,heavy=50,recent=50', 'leave it out'],
    ['h2o:budget=100,heavy=100', 'too little'],
    ['h2o:budget=120%', '100%'],
    ['h2o:budget=many', 'budget'],
    ['h2o:budget=1KiB', 'its smallest cache takes'],
  ])('refuses %s', (setting, message) => {
    expect(() => new TestLayer(setting, shape, F32)).toThrow(message)
  })

  it.each([
    ['its windows already drop keys', { differs: (il: number) => ({ visible: il === 3 ? { window: 64 } : 'causal' }) }],
    ["its layers read each other's keys", { differs: (il: number) => ({ kvSource: il === 3 ? 4 : il }) }],
    ['its tokens do not attend to themselves', { differs: () => ({ visible: 'strict' }) }],
  ] as [string, Partial<TestShape>][])('refuses a model where %s', (message, other) => {
    expect(() => new TestStack('h2o', { ...shape, ...other }, F32)).toThrow(message)
  })

  it('refuses to be cut back: scores cannot be', async () => {
    using layer = new TestLayer('h2o:budget=100', shape, F32)
    using cache = layer.newCache(256)
    await layer.attend([{ cache, x: tokens(0, 50) }])
    expect(layer.attention.truncate(cache, 40)).toBe(false)
    expect(cache.nTokens).toBe(50)
  })

  it('keeps the budget that its prompt had, also in a fork', async () => {
    using layer = new TestLayer('h2o:budget=50%', shape, F32)
    using cache = layer.newCache(256)
    await layer.attend([{ cache, x: tokens(0, 100) }])
    using fork = cache.fork()
    for (let at = 100; at < 140; at++) await layer.attend([{ cache: fork, x: tokens(at, at + 1) }])
    expect(fork.rows.nRows).toBe(49)
  })
})
