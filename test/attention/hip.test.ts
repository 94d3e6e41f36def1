import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import type { Attention } from '../../src/attention/attention.ts'
import { keepAll } from '../../src/attention/keep/all.ts'
import type { KeepMethod } from '../../src/attention/method.ts'
import { METHODS } from '../../src/attention/registry.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import { layerShapes } from '../../src/core/shape.ts'
import { Graph } from '../../src/ggml/graph.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { KvCache } from '../../src/kv/cache.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { TestStack } from '../support/attention-stack.ts'
import { N_EMBD, type TestShape } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { dot, type Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'
import { roundToF16, roundToQ8 } from '../support/rounding.ts'

const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
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
const T = 403
const x = normals(N_EMBD * T, 31)

const PAPER = {
  k: 40,
  block_q: 16,
  block_k: 2,
  stride_q: 2,
  stride_k: 1,
  window: 24,
  sink: 6,
  dense_layers: 0,
  refresh: 8,
  representative: 'center',
  heads: 'query',
}
type Options = typeof PAPER

interface Slot {
  st: number
  len: number
}

/** methods.md §1.3 A for one list: `votes` are rotated queries, `keys` the rotated keys of the KV head. */
function search(o: Options, votes: Float64Array[], keys: Float64Array[], nSrc: number): number[] {
  const nSel = Math.ceil(o.k / o.block_k)
  if (nSrc <= nSel) return Array.from({ length: nSrc }, (_, i) => i)
  let slots: Slot[] = Array.from({ length: nSel }, (_, i) => {
    const st = Math.floor((nSrc * i) / nSel)
    return { st, len: Math.floor((nSrc * (i + 1)) / nSel) - st }
  })
  const score = ({ st, len }: Slot): number => {
    if (len === 0) return -Infinity
    if (st < Math.ceil(o.sink / o.block_k)) return Infinity
    const block = o.representative === 'first' ? st : o.representative === 'last' ? st + len - 1 : st + Math.floor(len / 2)
    let most = -Infinity
    for (let j = o.stride_k - 1; j < o.block_k; j += o.stride_k) {
      for (const q of votes) most = Math.max(most, dot(q, keys[block * o.block_k + j]!))
    }
    return most
  }
  while (slots.some(({ len }) => len > 1)) {
    const halves = slots.flatMap(({ st, len }) => {
      const half = Math.floor(len / 2)
      return [
        { st, len: half },
        { st: st + half, len: len - half },
      ]
    })
    slots = halves
      .map((slot) => ({ slot, s: score(slot) }))
      .sort((a, b) => b.s - a.s)
      .slice(0, nSel)
      .map(({ slot }) => slot)
  }
  return slots
    .filter(({ len }) => len > 0)
    .map(({ st }) => st)
    .sort((a, b) => a - b)
}

const searched = (o: Options, first: number) => Math.floor(Math.max(0, first + 1 - o.window) / o.block_k)

/** Who votes for the query at t, and where its block begins: queries of a prompt by blocks, cut at `cuts`; then one by one. */
function blockOf(o: Options, t: number, nPrompt: number, cuts: readonly number[]): { first: number; voters: number[] } {
  if (t >= nPrompt) {
    const first = t - (t % o.refresh)
    return { first, voters: [Math.max(first, nPrompt)] }
  }
  const first = t - (t % o.block_q)
  const from = cuts.findLast((cut) => cut <= t)!
  const to = cuts.find((cut) => cut > t)!
  const rows = Array.from({ length: o.block_q }, (_, i) => Math.min(Math.max(first + i, from), to - 1))
  return { first, voters: rows.filter((_, i) => i % o.stride_q === o.stride_q - 1) }
}

interface Rounding {
  /** A key or value in the cache. */
  readonly stored: (vector: Float64Array) => Float64Array
  /** A query or key in a search by `nVotes` rows. */
  readonly scored: (nVotes: number) => (vector: Float64Array) => Float64Array
}

const EXACT: Rounding = { stored: (vector) => vector, scored: () => (vector) => vector }

/** A cache of f16: few rows vote in f16, many in 8 bits. */
const F16_CACHE: Rounding = {
  stored: roundToF16,
  scored: (nVotes) =>
    nVotes < 16 ? roundToF16 : (vector) => (vector.length % 32 === 0 ? roundToQ8(vector) : roundToF16(vector)),
}

function hipOracle(
  oracle: Oracle,
  o: Options,
  nPrompt: number,
  cuts: readonly number[],
  { stored, scored }: Rounding = EXACT,
): Float64Array {
  const { nHead, nHeadKv } = oracle.shape
  const g = nHead / nHeadKv
  const k = oracle.k.map((heads, t) => heads.map((head) => stored(oracle.rotate(head, t))))
  const v = oracle.v.map((heads) => heads.map(stored))
  const q = oracle.q.map((heads, t) => heads.map((head) => oracle.rotate(head, t)))
  const known = new Map<string, number[]>()
  return oracle.layer((t, h) => {
    const kv = Math.floor(h / g)
    const { first, voters } = blockOf(o, t, nPrompt, cuts)
    const heads = o.heads === 'query' ? [h] : oracle.group(kv)
    const id = `${voters.join()}:${heads.join()}`
    const keys = k.map((all) => all[kv]!)
    const nSrc = searched(o, first)
    const votes = voters.flatMap((row) => heads.map((head) => q[row]![head]!))
    const round = scored(votes.length)
    const blocks = known.get(id) ?? search(o, votes.map(round), keys.map(round), nSrc)
    known.set(id, blocks)
    const positions = blocks.flatMap((block) => Array.from({ length: o.block_k }, (_, j) => block * o.block_k + j))
    for (let position = nSrc * o.block_k; position < oracle.sees(t)[1]; position++) positions.push(position)
    const p = oracle.probabilities(
      q[t]![h]!,
      positions.map((position) => keys[position]!),
      h,
    )
    return oracle.weigh(
      p,
      positions.map((position) => v[position]![kv]!),
    )
  })
}

/** A keep method that wants to know every probability. */
const listen: KeepMethod = {
  ...{ name: 'listen', axis: 'keep', summary: 'For tests.', source: 'nowhere', cost: 'nothing', options: z.object({}) },
  bind: (_, shape) => ({ ...keepAll(shape), wantsProbs: true }),
}

const spec = (o: object) => ({ method: 'hip', ...o })

async function run(layer: TestLayer, cuts: readonly number[], nPrompt: number, nTokens = T): Promise<Float32Array> {
  using cache = layer.newCache(512)
  const outputs: number[] = []
  const ends = [...cuts.slice(1), ...Array.from({ length: nTokens - nPrompt }, (_, i) => nPrompt + i + 1)]
  let at = 0
  for (const end of ends) {
    outputs.push(...(await layer.attend([{ cache, x: x.subarray(at * N_EMBD, end * N_EMBD) }]))[0]!)
    at = end
  }
  cache.checkIntegrity()
  return Float32Array.from(outputs)
}

const VARIANTS: [string, Partial<Options>][] = [
  ['a list per query head', {}],
  ['a list per KV head', { heads: 'kv' }],
  ['the first block of a half', { representative: 'first', block_k: 3, k: 42 }],
  ['the last block of a half, keys sampled', { representative: 'last', block_k: 4, stride_k: 2 }],
  ['one key per block, no sinks, every query', { block_k: 1, sink: 0, stride_q: 1, k: 21 }],
  ['a search for every token', { refresh: 1 }],
  ['query blocks as the tiles of flash attention', { block_q: 64, heads: 'kv' }],
]
const N_PROMPT = 301

describe.each(SHAPES)('hip, $nHead heads on $nHeadKv of $headDim', (shape: TestShape) => {
  it.each(VARIANTS)('is what it says: %s', async (_, changed) => {
    const o = { ...PAPER, ...changed }
    using layer = new TestLayer(spec(o), shape, F32)
    const oracle = layer.oracle(x)
    for (const cuts of [
      [0, N_PROMPT],
      [0, 67, 200, 213, N_PROMPT],
      [0, 64, 128, 256, N_PROMPT],
    ]) {
      const expected = hipOracle(oracle, o, N_PROMPT, cuts)
      expect(relativeError(await run(layer, cuts, N_PROMPT), expected), cuts.join()).toBeLessThan(TOLERANCE.f32)
    }
    const oneByOne = await run(layer, [0, 1], 1)
    expect(relativeError(oneByOne, hipOracle(oracle, o, 1, [0, 1])), 'token by token').toBeLessThan(TOLERANCE.f32)
  })

  it('is what it says over an f16 cache', async () => {
    const o = { ...PAPER, heads: 'kv' }
    using layer = new TestLayer(spec(o), shape, F16)
    const expected = hipOracle(layer.oracle(x), o, N_PROMPT, [0, N_PROMPT], F16_CACHE)
    // For a single query ggml's flash attention sums values of f16 in f16.
    expect(relativeError(await run(layer, [0, N_PROMPT], N_PROMPT), expected)).toBeLessThan(2 * TOLERANCE.f16)
  })

  it.each([
    ['k and the window hold everything', { k: T - 20, window: 20 }],
    ['every layer is a dense one', { dense_layers: 1, k: 8, sink: 2 }],
  ])('is dense if %s', async (_, changed) => {
    using layer = new TestLayer(spec({ ...PAPER, ...changed }), shape, F32)
    const expected = layer.oracle(x).dense()
    for (const nPrompt of [N_PROMPT, 1]) {
      expect(relativeError(await run(layer, [0, nPrompt], nPrompt), expected)).toBeLessThan(TOLERANCE.f32)
    }
  })

  it('is dense for the first k + window queries', async () => {
    using layer = new TestLayer(spec(PAPER), shape, F32)
    const first = layer
      .oracle(x)
      .dense()
      .subarray(0, (PAPER.k + PAPER.window) * N_EMBD)
    const outputs = await run(layer, [0, N_PROMPT], N_PROMPT)
    expect(relativeError(outputs.subarray(0, first.length), first)).toBeLessThan(TOLERANCE.f32)
    expect(outputs.subarray(first.length)).not.toEqual(first)
  })

  it('does not let cuts matter between query blocks, nor queries of later blocks', async () => {
    using layer = new TestLayer(spec(PAPER), shape, F32)
    const whole = await run(layer, [0, N_PROMPT], N_PROMPT)
    expect(relativeError(await run(layer, [0, 112, 160, 176, N_PROMPT], N_PROMPT), whole)).toBeLessThan(1e-5)
    const shorter = await run(layer, [0, 256], 256, 256)
    expect(relativeError(shorter, whole.subarray(0, shorter.length))).toBeLessThan(1e-5)
  })

  it('chooses anew after tokens were forgotten', async () => {
    using layer = new TestLayer(spec(PAPER), shape, F32)
    const take = (from: number, to: number) => x.subarray(from * N_EMBD, to * N_EMBD)
    using cache = layer.newCache(512)
    using fresh = layer.newCache(512)
    await layer.attend([{ cache, x: take(0, 296) }])
    for (let t = 296; t < 302; t++) await layer.attend([{ cache, x: take(t + 50, t + 51) }])
    expect(layer.attention.truncate(cache, 292), 'the queries of a block choose together').toBe(false)
    expect(layer.attention.truncate(cache, 288)).toBe(true)
    await layer.attend([{ cache, x: take(288, 299) }])
    const [again] = await layer.attend([{ cache, x: take(299, 300) }])
    for (const [from, to] of [
      [0, 288],
      [288, 299],
    ] as const)
      await layer.attend([{ cache: fresh, x: take(from, to) }])
    const [expected] = await layer.attend([{ cache: fresh, x: take(299, 300) }])
    expect(relativeError(again!, expected!)).toBeLessThan(1e-5)
  })

  it('equals its formula whatever the options', async () => {
    const options = fc.record({
      k: fc.integer({ min: 8, max: 60 }),
      block_q: fc.integer({ min: 1, max: 33 }),
      block_k: fc.integer({ min: 1, max: 7 }),
      stride_q: fc.integer({ min: 1, max: 4 }),
      stride_k: fc.integer({ min: 1, max: 3 }),
      window: fc.integer({ min: 1, max: 40 }),
      sink: fc.integer({ min: 0, max: 8 }),
      refresh: fc.integer({ min: 1, max: 9 }),
      representative: fc.constantFrom('center', 'first', 'last'),
      heads: fc.constantFrom('query', 'kv'),
      cut: fc.integer({ min: 2, max: 148 }), // a part of one token is read as a decoded one
    })
    const few = x.subarray(0, 170 * N_EMBD)
    await fc.assert(
      fc.asyncProperty(options, async ({ cut, ...given }) => {
        const strides = { stride_q: Math.min(given.stride_q, given.block_q), stride_k: Math.min(given.stride_k, given.block_k) }
        const o = { ...PAPER, ...given, ...strides }
        using layer = new TestLayer(spec(o), shape, F32)
        const expected = hipOracle(layer.oracle(few), o, 150, [0, cut, 150])
        expect(relativeError(await run(layer, [0, cut, 150], 150, 170), expected)).toBeLessThan(TOLERANCE.f32)
      }),
      { numRuns: 15, seed: 5 },
    )
  })
})

describe.each(OTHERS)('hip in a layer of another kind, $nHead heads on $nHeadKv of $headDim', (shape) => {
  const cuts = [0, 200, N_PROMPT]

  it.each(VARIANTS.slice(0, 2))('is what it says: %s', async (_, changed) => {
    const o = { ...PAPER, ...changed }
    using layer = new TestLayer(spec(o), shape, F32)
    const expected = hipOracle(layer.oracle(x), o, N_PROMPT, cuts)
    expect(relativeError(await run(layer, cuts, N_PROMPT), expected)).toBeLessThan(TOLERANCE.f32)
  })

  it('tells its probabilities', async () => {
    const o = { ...PAPER, heads: 'kv' }
    using layer = new TestLayer([{ method: 'listen' }, spec(o)], shape, F32, [listen, ...METHODS])
    const expected = hipOracle(layer.oracle(x), o, 1, [0, 1])
    expect(relativeError(await run(layer, [0, 1], 1), expected)).toBeLessThan(TOLERANCE.f32)
  })
})

it('reads layers with a window as they are', async () => {
  using stack = new TestStack(spec({ ...PAPER, k: T - 20, window: 20 }), MIXED, F32)
  const few = x.subarray(0, 330 * N_EMBD)
  const outputs = await run(stack, [0, 200, N_PROMPT], N_PROMPT, 330)
  expect(relativeError(outputs, stack.oracle(few).dense())).toBeLessThan(TOLERANCE.f32)
  const stores = stack.attention.layout({ k: F16, v: F16 }).layers.map((layer) => Object.keys(layer).join())
  expect(stores).toEqual(['k,v', 'k,v,selected', 'k,v', 'k,v,selected', 'k,v'])
})

describe('options', () => {
  const ANY = { arch: 'test', nLayer: 1, nEmbd: 1, nHead: 1, nHeadKv: 1, headDim: 2, nFf: 1, nVocab: 1, nCtxTrain: 1 }
  const attentionOf = (setting: string) => attentionFor(setting, { ...ANY, layers: layerShapes(ANY) })

  it.each([
    ['preset=paper', 512 / 2],
    ['preset=contiguous', 1024 / 32],
    ['preset=contiguous,k=512', 512 / 32],
    ['preset=contiguous,k=512,block_k=2,stride_k=1', 512 / 2],
    ['k=1024', 1024 / 2],
    ['k=512', 512 / 2],
  ])('that are written count as written, others are as the preset has them: %s', (written, nChosen) => {
    const attention = attentionOf(`hip:dense_layers=0,${written}`)
    for (const one of [attention, attentionOf(attention.spec)]) {
      expect(one.layout({ k: F16, v: F16 }).layers[0]!['selected']!.width).toBe(nChosen)
    }
  })

  it.each([
    ['hip:sink=600', /sink 600 must not be more than k 512/],
    ['hip:preset=contiguous,block_k=2', /stride_k 8 leaves no key of a block of 2/],
    ['hip:stride_q=65', /stride_q 65 leaves no query of a block of 64/],
  ])('that do not go together are refused: %s', (setting, message) => {
    expect(() => attentionOf(setting)).toThrow(message)
  })
})

describe('the keys it reads', () => {
  const ANY = { arch: 'test', nLayer: 4, nEmbd: 1, nHead: 32, nHeadKv: 8, headDim: 16, nFf: 1, nVocab: 1, nCtxTrain: 1 }
  const SHAPE = { ...ANY, layers: layerShapes(ANY) }
  const keysRead = (attention: Attention, cache: KvCache) => attention.cost(cache, attention.facts(cache, 1)).read

  it.each([
    ['query', 'center', 4 * (512 + 257 + 512 * 8)],
    ['kv', 'center', 512 + 257 + 512 * 8],
    ['kv', 'last', 512 + 257 + (512 * 9) / 2],
  ])('are those of the formula at 128k: heads=%s, %s', (heads, representative, perKvHead) => {
    const attention = attentionFor(spec({ heads, representative, dense_layers: 1 }), SHAPE)
    using cache = new KvCache(attention.layout({ k: F16, v: F16 }), 131072 + 64)
    cache.append(131072) // The next token is one to search for. Its window is cut to whole blocks of 2: 257 keys.
    const dense = 131073
    expect(keysRead(attention, cache)).toBe(8 * (dense + 3 * perKvHead))
  })

  it('are those it gathers', async () => {
    const shape = { nHead: 8, nHeadKv: 2, headDim: 64 }
    for (const heads of ['kv', 'query']) {
      using layer = new TestLayer(spec({ ...PAPER, heads }), shape, F16)
      using cache = layer.newCache(512)
      await layer.attend([{ cache, x: x.subarray(0, N_PROMPT * N_EMBD) }])
      const gathered = vi.spyOn(Graph.prototype, 'getRowsAsStored')
      for (let t = N_PROMPT; t < N_PROMPT + 12; t++) {
        gathered.mockClear()
        layer.forgetPlan()
        const counted = keysRead(layer.attention, cache)
        await layer.attend([{ cache, x: x.subarray(t * N_EMBD, (t + 1) * N_EMBD) }])
        const elements = gathered.mock.calls
          .filter(([from]) => from.type === F16)
          .reduce((sum, [from, index]) => sum + from.ne[0] * index.ne[0] * index.ne[1], 0)
        // The window's room is for the last token of a block; what is not there yet is masked.
        const room = PAPER.window + PAPER.refresh - 1 + PAPER.block_k - 1
        const first = t - (t % PAPER.refresh)
        const masked = room - (t + 1 - searched(PAPER, first) * PAPER.block_k)
        expect(elements / (2 * shape.headDim) - masked * (heads === 'query' ? 8 : 2)).toBe(counted)
      }
      gathered.mockRestore()
    }
  })
})
