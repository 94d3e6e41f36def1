import { afterEach, describe, expect, it, vi } from 'vitest'
import { ggml } from '../../src/ggml/library.ts'
import { Ops } from '../../src/ggml/ops.ts'
import { nElements, type Tensor } from '../../src/ggml/tensor.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import type { KvCache } from '../../src/kv/cache.ts'
import { roundUp, TILE } from '../../src/kv/layout.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { TestStack } from '../support/attention-stack.ts'
import { N_EMBD, type TestShape } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { dot, type Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
  { nHead: 2, nHeadKv: 2, headDim: 128 },
]
/** Layers of other kinds: with sinks, a softcap, and values of another width; and where no query sees its own key. */
const OTHERS: readonly TestShape[] = [
  { nHead: 6, nHeadKv: 2, headDim: 64, sinks: true, differs: () => ({ dV: 96, softcap: 2, scale: 0.3 }) },
  { nHead: 6, nHeadKv: 3, headDim: 32, differs: () => ({ visible: 'strict' }) },
]
/** Layers of both kinds. */
const MIXED: TestShape = {
  ...{ nHead: 4, nHeadKv: 2, headDim: 32 },
  differs: (il) => ({ visible: il % 2 === 0 ? { window: 90 } : 'causal' }),
}
const PROMPT = 301
const T = PROMPT + 16
/** Queries and keys large enough for some scores to stand out. */
const x = normals(N_EMBD * T, 31).map((v) => 1.5 * v)
const tokens = (from: number, to: number) => x.subarray(from * N_EMBD, to * N_EMBD)

interface Options {
  readonly r: number
  readonly k: number
  readonly local: number
  readonly store: 'twice' | 'once'
  readonly from: number
  readonly realloc: boolean
}
const DEFAULTS: Options = { r: 8, k: 40, local: 0.25, store: 'twice', from: 0, realloc: true }

const sum = (list: ArrayLike<number>) => Array.from(list).reduce((a, b) => a + b, 0)
const largest = (list: ArrayLike<number>, n: number) =>
  Array.from(list, (_, i) => i)
    .sort((a, b) => list[b]! - list[a]!)
    .slice(0, n)

interface Held {
  /** Of a KV head's query heads, turned. */
  readonly q: readonly Float64Array[]
  /** Oldest first, the newest that the query sees last. */
  readonly keys: readonly Float64Array[]
  readonly values: readonly Float64Array[]
  /** ggml type in which products with stored keys take a query. */
  readonly type?: number
  /** What the layer has that others have not; sinks are those of the query heads. */
  readonly scale?: number
  readonly softcap?: number | null
  readonly sinks?: readonly number[]
}

/** methods.md §3.2, steps 2 to 7, for the query heads of one KV head: outputs, and what each key got of each. */
function sparqOracle(held: Held, { r, k, local, realloc }: Options) {
  const { q, keys, values, type = F32 } = held
  const [n, d] = [keys.length, q[0]!.length]
  const { scale = 1 / Math.sqrt(d), softcap = null } = held
  const norm = (list: ArrayLike<number>) => sum(Array.from(list, Math.abs))
  const average = (list: readonly Float64Array[]) => list[0]!.map((_, i) => sum(list.map((v) => v[i]!)) / list.length)
  const mean = average(values)
  const i1 = largest(
    Array.from({ length: d }, (_, i) => norm(q.map((head) => head[i]!))),
    r,
  )
  const pick = (list: Float64Array) => Float64Array.from(i1, (i) => list[i]!)
  const softmax = (scores: number[], head: number) => {
    const given = softcap === null ? scores : scores.map((s) => softcap * Math.tanh(s / softcap))
    const sink = held.sinks?.[head] ?? -Infinity
    const most = Math.max(...given, sink)
    const weights = given.map((s) => Math.exp(s - most))
    const total = sum(weights) + Math.exp(sink - most)
    return weights.map((w) => w / total)
  }
  const guess = q.map((head, j) => {
    const temperature = scale * Math.sqrt(norm(head) / norm(pick(head)))
    const scaled = rounded(
      pick(head).map((v) => v * temperature),
      type,
    )
    return softmax(
      keys.map((key) => dot(scaled, pick(key))),
      j,
    )
  })
  const ranking = keys.map((_, i) => sum(guess.map((p) => p[i]!)) + (n - i <= Math.floor(k * local) ? 100 : 0))
  const i2 = largest(ranking, k)
  return q.map((head, j) => {
    const s = softmax(
      i2.map((i) => dot(head, keys[i]!) * scale),
      j,
    )
    const y = mean.map((_, c) => sum(i2.map((i, at) => s[at]! * values[i]![c]!)))
    // Of keys and sink together, by the guess for keys not read, which are so many times as much as those that are.
    const found = sum(i2.map((i) => guess[j]![i]!))
    const others = (sum(guess[j]!) / found - 1) * sum(s)
    const alpha = realloc ? 1 / (1 + others) : 1
    const got = new Float64Array(n)
    for (const [at, i] of i2.entries()) got[i] = alpha * s[at]!
    return { o: y.map((v, c) => alpha * v + (1 - alpha) * mean[c]!), got }
  })
}

/** As a cache of f16 holds it. */
function rounded(list: Float64Array, type: number): Float64Array {
  if (type === F32) return list
  const half = new Uint16Array(list.length)
  const single = new Float32Array(list.length)
  ggml().ggml_fp32_to_fp16_row(Float32Array.from(list), half, list.length)
  ggml().ggml_fp16_to_fp32_row(half, single, list.length)
  return Float64Array.from(single)
}

/** The layer's outputs for tokens from `from` on, each on all keys that it sees. */
function expectedOutputs(layer: TestLayer, oracle: Oracle, from: number, options: Options, type: number): Float64Array {
  const { dK: d, dV, scale, softcap } = layer.modelShape.layers[0]!
  const { sinks } = layer.weights
  const keys = oracle.k.map((heads, t) => heads.map((key) => rounded(oracle.rotate(key, t), type)))
  const values = oracle.v.map((heads) => heads.map((value) => rounded(value, type)))
  const found = new Map<string, Float64Array>()
  return oracle
    .layer((t, h) => {
      if (t < from) return new Float64Array(dV)
      const kv = Math.floor(h / (oracle.shape.nHead / oracle.shape.nHeadKv))
      const [, end] = oracle.sees(t)
      const tiles = roundUp(t + 1, TILE)
      const c = options.store === 'twice' ? options.r : d
      const isAll = t < options.from || options.k + (tiles * c) / (d + dV) >= tiles
      const used = isAll ? { ...options, r: d, k: t + 1 } : options
      const held = {
        q: oracle.group(kv).map((head) => oracle.rotate(oracle.q[t]![head]!, t)),
        keys: keys.slice(0, end).map((heads) => heads[kv]!),
        values: values.slice(0, end).map((heads) => heads[kv]!),
        type: options.store === 'once' ? type : F32,
        ...{ scale, softcap },
        ...(sinks && { sinks: oracle.group(kv).map((head) => sinks[head]!) }),
      }
      if (!found.has(`${t}:${h}`)) {
        for (const [i, { o }] of sparqOracle(held, used).entries()) found.set(`${t}:${oracle.group(kv)[i]}`, o)
      }
      return found.get(`${t}:${h}`)!
    })
    .slice(from * N_EMBD)
}

async function readPrompt(layer: TestLayer, cache: KvCache, n = PROMPT, size = 512): Promise<void> {
  for (let at = 0; at < n;) {
    const end = Math.min(n, at + size, at + layer.attention.maxChunk(cache))
    await layer.attend([{ cache, x: tokens(at, end) }], end === n)
    at = end
  }
}

async function decode(layer: TestLayer, cache: KvCache, from: number, to: number): Promise<number[]> {
  const outputs: number[] = []
  for (let at = from; at < to; at++) outputs.push(...(await layer.attend([{ cache, x: tokens(at, at + 1) }]))[0]!)
  return outputs
}

const settingOf = (options: Options) => ({ method: 'sparq', ...options })

describe.each([...SHAPES, ...OTHERS])('sparq, $nHead heads on $nHeadKv of $headDim', (shape) => {
  let oracle: Oracle | undefined
  const oracleOf = (layer: TestLayer) => (oracle ??= layer.oracle(x))

  it.each([
    ['as it is', {}],
    ['over an f16 cache', { type: F16 }],
    ['keys stored once', { store: 'once' }],
    ['keys stored once, over an f16 cache', { store: 'once', type: F16 }],
    ['no mean values', { realloc: false }],
    ['no local window', { local: 0 }],
    ['only a local window', { local: 1 }],
    ['one component, one key', { r: 1, k: 1 }],
    ['all components: the best keys themselves', { r: shape.headDim, k: 30 }],
    ['nearly all keys', { r: 5, k: 290 }],
    ['choosing among more than 308 keys', { from: 308 }],
  ] as const)('is what it says: %s', async (_, { type = F32, ...changed }: Partial<Options> & { type?: number }) => {
    const options = { ...DEFAULTS, ...changed }
    using layer = new TestLayer(settingOf(options), shape, type)
    using cache = layer.newCache(1024)
    await readPrompt(layer, cache)
    const expected = expectedOutputs(layer, oracleOf(layer), PROMPT, options, type)
    const tolerance = type === F16 ? 4 * TOLERANCE.f16 : TOLERANCE.f32
    expect(relativeError(await decode(layer, cache, PROMPT, T), expected)).toBeLessThan(tolerance)
  })

  it('is the same token by token, from the first one on', async () => {
    using layer = new TestLayer(settingOf(DEFAULTS), shape, F32)
    using cache = layer.newCache(1024)
    const outputs = await decode(layer, cache, 0, PROMPT)
    const from = 250
    const expected = expectedOutputs(layer, oracleOf(layer), from, DEFAULTS, F32).subarray(0, (PROMPT - from) * N_EMBD)
    expect(relativeError(outputs.slice(from * N_EMBD), expected)).toBeLessThan(TOLERANCE.f32)
  })

  it.each([100, 256, 300])('forgets what is cut off: back to %i tokens', async (kept) => {
    using layer = new TestLayer(settingOf(DEFAULTS), shape, F32)
    using cut = layer.newCache(1024)
    using other = layer.newCache(1024)
    // Other text first, as long as what comes in its place: a count alone would not tell.
    await readPrompt(layer, cut, kept)
    await layer.attend([{ cache: cut, x: x.map((v) => v + 1).subarray(kept * N_EMBD, PROMPT * N_EMBD) }])
    expect(layer.attention.truncate(cut, kept)).toBe(true)
    await layer.attend([{ cache: cut, x: tokens(kept, PROMPT) }])
    await readPrompt(layer, other, PROMPT)
    expect(
      relativeError(await decode(layer, cut, PROMPT, PROMPT + 3), await decode(layer, other, PROMPT, PROMPT + 3)),
    ).toBeLessThan(TOLERANCE.f32)
  })
})

describe.each(SHAPES)('sparq beside others, $nHead heads on $nHeadKv of $headDim', (shape) => {
  it('works on what is kept, and tells how much of it was read', async () => {
    const options = { ...DEFAULTS, r: 5, k: 20 }
    const [heavy, recent] = [70, 230]
    using layer = new TestLayer([{ method: 'h2o', heavy, recent }, settingOf(options)], shape, F32)
    using cache = layer.newCache(1024)
    const oracle = layer.oracle(x)
    await readPrompt(layer, cache)
    const actual = await decode(layer, cache, PROMPT, T)
    const key = (t: number, kv: number) => oracle.rotate(oracle.k[t]![kv]!, t)
    const queries = (t: number, kv: number) => oracle.group(kv).map((h) => oracle.rotate(oracle.q[t]![h]!, t))
    const heads = Array.from({ length: shape.nHeadKv }, (_, kv) => {
      const score = new Float64Array(T)
      const keys = Array.from({ length: T }, (_, t) => key(t, kv))
      for (let t = 0; t < PROMPT; t++) {
        for (const q of queries(t, kv))
          for (const [i, p] of oracle.probabilities(q, keys.slice(0, t + 1)).entries()) score[i]! += p
      }
      const older = PROMPT - recent
      const best = largest(score.subarray(0, older), heavy).sort((a, b) => a - b)
      return { score, keys, held: [...best, ...Array.from({ length: recent }, (_, i) => older + i)] }
    })
    const expected = oracle.layer((t, h) => {
      const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
      const { score, keys, held } = heads[kv]!
      if (t < PROMPT) return new Float64Array(shape.headDim)
      const isFirst = h === oracle.group(kv)[0]
      const isLast = h === oracle.group(kv).at(-1)
      if (isFirst) held.push(t)
      const list = { q: queries(t, kv), keys: held.map((i) => keys[i]!), values: held.map((i) => oracle.v[i]![kv]!) }
      const found = sparqOracle(list, options)
      if (isLast) {
        for (const { got } of found) for (const [i, p] of got.entries()) score[held[i]!]! += p
        const older = held.slice(0, held.length - recent)
        held.splice(
          largest(
            older.map((i) => -score[i]!),
            1,
          )[0]!,
          1,
        )
      }
      return found[h - oracle.group(kv)[0]!]!.o
    })
    expect(relativeError(actual, expected.subarray(PROMPT * N_EMBD))).toBeLessThan(TOLERANCE.f32)
    for (const [kv, map] of cache.layers[0]!.rows.entries()) {
      expect(Array.from({ length: map.nRows }, (_, rank) => map.position(map.row(rank)))).toEqual(heads[kv]!.held)
    }
  })

  it('works on keys that move with every step', async () => {
    const options = { ...DEFAULTS, k: 20 }
    using layer = new TestLayer([{ method: 'streaming', sink: 4, window: 200 }, settingOf(options)], shape, F32)
    using cache = layer.newCache(4096)
    await readPrompt(layer, cache, T - 1)
    const held = [0, 1, 2, 3, ...Array.from({ length: 201 }, (_, i) => T - 201 + i)]
    const oracle = layer.oracle(x)
    // Which components of a query are large depends on its rotation: it stands at its position, the keys at their distances.
    const nDropped = T - held.length
    const expected = oracle.layer((t, h) => {
      if (t < T - 1) return new Float64Array(shape.headDim)
      const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
      const found = sparqOracle(
        {
          q: oracle.group(kv).map((head) => oracle.rotate(oracle.q[t]![head]!, t)),
          keys: held.map((i, at) => oracle.rotate(oracle.k[i]![kv]!, nDropped + at)),
          values: held.map((i) => oracle.v[i]![kv]!),
        },
        options,
      )
      return found[h - oracle.group(kv)[0]!]!.o
    })
    const actual = await decode(layer, cache, T - 1, T)
    expect(relativeError(actual, expected.subarray((T - 1) * N_EMBD))).toBeLessThan(TOLERANCE.f32)
  })
})

it('reads layers with a window as they are', async () => {
  using stack = new TestStack(settingOf({ ...DEFAULTS, k: 1024 }), MIXED, F32)
  using cache = stack.newCache(1024)
  await readPrompt(stack, cache)
  const expected = stack
    .oracle(x)
    .dense()
    .subarray(PROMPT * N_EMBD)
  expect(relativeError(await decode(stack, cache, PROMPT, T), expected)).toBeLessThan(TOLERANCE.f32)
  const stores = stack.attention.layout({ k: F16, v: F16 }).layers.map((layer) => Object.keys(layer).join())
  expect(stores).toEqual(['k,v', 'k,v,kT,mean', 'k,v', 'k,v,kT,mean', 'k,v'])
})

describe('what sparq reads', () => {
  afterEach(() => vi.restoreAllMocks())

  it('is S·r + 2k·d + 4d elements per KV head, and d for the second copy of a key', async () => {
    const shape = { nHead: 8, nHeadKv: 2, headDim: 64 }
    const [S, r, k, d, G] = [1024, 16, 50, 64, 2]
    const long = normals(N_EMBD * S, 5)
    using layer = new TestLayer({ method: 'sparq', r, k, from: 0 }, shape, F16)
    using cache = layer.newCache(1024)
    await layer.attend([{ cache, x: long.subarray(0, (S - 1) * N_EMBD) }])
    const { mean } = cache.layers[0]!.stores
    // Only the cache is f16, and the mask, from which one element is taken per row; only these touch it and the running mean.
    let nTouched = 0
    const count = (tensor: Tensor, n: number) => (nTouched += tensor.type === F16 || tensor.ptr === mean!.tensor.ptr ? n : 0)
    // oxlint-disable-next-line typescript/unbound-method -- they are called with their own this below
    const { getRows, setRows } = Ops.prototype
    vi.spyOn(Ops.prototype, 'getRows').mockImplementation(function (this: Ops, a, index) {
      if (a.ne[0] > 1) count(a, a.ne[0] * nElements(index.ne))
      return getRows.call(this, a, index)
    })
    vi.spyOn(Ops.prototype, 'setRows').mockImplementation(function (this: Ops, into, rows, index) {
      count(into, nElements(rows.ne))
      return setRows.call(this, into, rows, index)
    })
    const keysRead = layer.attention.cost(cache, layer.attention.facts(cache, 1)).read
    await layer.attend([{ cache, x: long.subarray((S - 1) * N_EMBD) }])
    expect(nTouched / G).toBe(S * r + 2 * k * d + 4 * d + d)
    expect((keysRead / G) * 2 * d).toBe(S * r + 2 * k * d)
  })

  it.each([
    ['twice', 3],
    ['once', 2],
  ] as const)('takes the memory of keys and values stored %s', (store, copies) => {
    using layer = new TestLayer({ method: 'sparq', r: 8, store }, SHAPES[1]!, F16)
    const [cells] = layer.attention.layout({ k: F16, v: F16 }).layers
    const grows = Object.values(cells!).filter(({ fixed }) => fixed === undefined)
    expect(grows.map(({ width }) => width)).toEqual(Array.from({ length: copies }, () => 64))
  })

  it('is refused where a head has fewer components than it should read', () => {
    expect(() => new TestLayer('sparq:r=65', SHAPES[1]!, F16)).toThrow(/r is 65/)
  })
})
