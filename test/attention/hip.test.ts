import { describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { N_EMBD, TestLayer, type LayerShape } from '../support/attention-layer.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { dot, type Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
]
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

function hipOracle(oracle: Oracle, o: Options, nPrompt: number, cuts: readonly number[]): Float64Array {
  const { nHead, nHeadKv } = oracle.shape
  const g = nHead / nHeadKv
  const k = oracle.k.map((heads, t) => heads.map((head) => oracle.rotate(head, t)))
  const q = oracle.q.map((heads, t) => heads.map((head) => oracle.rotate(head, t)))
  const known = new Map<string, number[]>()
  return oracle.layer((t, h) => {
    const kv = Math.floor(h / g)
    const { first, voters } = blockOf(o, t, nPrompt, cuts)
    const heads = o.heads === 'query' ? [h] : oracle.group(kv)
    const id = `${voters.join()}:${heads.join()}`
    const keys = k.map((all) => all[kv]!)
    const nSrc = searched(o, first)
    const blocks =
      known.get(id) ??
      search(
        o,
        voters.flatMap((row) => heads.map((head) => q[row]![head]!)),
        keys,
        nSrc,
      )
    known.set(id, blocks)
    const positions = blocks.flatMap((block) => Array.from({ length: o.block_k }, (_, j) => block * o.block_k + j))
    for (let position = nSrc * o.block_k; position <= t; position++) positions.push(position)
    const p = oracle.probabilities(
      q[t]![h]!,
      positions.map((position) => keys[position]!),
    )
    return oracle.weigh(
      p,
      positions.map((position) => oracle.v[position]![kv]!),
    )
  })
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

describe.each(SHAPES.slice(0, Number(process.env.N ?? 9)))('hip, $nHead heads on $nHeadKv of $headDim', (shape: LayerShape) => {
  it.each(VARIANTS)('is what it says: %s', async (_, changed) => {
    const o = { ...PAPER, ...changed }
    using layer = new TestLayer(spec(o), shape, F32)
    const nPrompt = 301
    for (const cuts of [
      [0, nPrompt],
      [0, 67, 200, 213, nPrompt],
      [0, 64, 128, 256, nPrompt],
    ]) {
      const expected = hipOracle(layer.oracle(x), o, nPrompt, cuts)
      expect(relativeError(await run(layer, cuts, nPrompt), expected), cuts.join()).toBeLessThan(TOLERANCE.f32)
    }
    expect(relativeError(await run(layer, [0, 1], 1), hipOracle(layer.oracle(x), o, 1, [0, 1])), 'token by token').toBeLessThan(
      TOLERANCE.f32,
    )
  })

  void F16
})
