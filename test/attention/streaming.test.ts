import { describe, expect, it } from 'vitest'
import { keepStreaming, streaming } from '../../src/attention/keep/streaming.ts'
import { F32 } from '../../src/ggml/types.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { TestStack } from '../support/attention-stack.ts'
import { N_EMBD, type TestShape } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import type { Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

const SINK = 3
const WINDOW = 50
const T = 301
const x = normals(N_EMBD * T, 11)
const SHAPES: TestShape[] = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
]
/** Layers with windows of their own, shorter and longer than ours, and with all that makes other probabilities. */
const OTHERS: (TestShape & { name: string })[] = [
  { name: 'a shorter window', nHead: 8, nHeadKv: 2, headDim: 64, differs: () => ({ visible: { window: 30 } }) },
  { name: 'a longer window', nHead: 4, nHeadKv: 4, headDim: 32, differs: () => ({ visible: { window: 80 } }) },
  { name: 'no key of its own', nHead: 4, nHeadKv: 4, headDim: 32, differs: () => ({ visible: 'strict' }) },
  {
    name: 'softcap and sinks',
    nHead: 8,
    nHeadKv: 2,
    headDim: 64,
    sinks: true,
    differs: () => ({ scale: 0.5, softcap: 1, dV: 32 }),
  },
]

/** methods.md §6, token by token: what the cache holds, then itself, all at their places; of these what the layer shows. */
function streamingOracle(oracle: Oracle): Float64Array {
  const held: number[] = []
  let seen: number[] = []
  return oracle.layer((t, h) => {
    if (h === 0) {
      seen = [...held, t]
      held.push(t)
      if (held.length > SINK + WINDOW) held.splice(SINK, 1)
    }
    const kv = Math.floor(h / (oracle.shape.nHead / oracle.shape.nHeadKv))
    const [first, end] = oracle.sees(t)
    const shown = [...seen.entries()].filter(([, position]) => position >= first && position < end)
    const keys = shown.map(([place, position]) => oracle.rotate(oracle.k[position]![kv]!, place))
    const p = oracle.probabilities(oracle.rotate(oracle.q[t]![h]!, seen.length - 1), keys, h)
    return oracle.weigh(
      p,
      shown.map(([, position]) => oracle.v[position]![kv]!),
    )
  })
}

const SIZES = [
  ['at once, as chunks allow', () => 256],
  ['in odd pieces', (at: number) => (at < 150 ? 67 : 13)],
  ['token by token', () => 1],
  ['a prompt, then tokens', (at: number) => (at === 0 ? 120 : 1)],
  ['a prompt, then tokens, then another prompt', (at: number) => (at === 0 ? 120 : at < 160 ? 1 : 61)],
] as const

async function run(layer: TestLayer, size: (at: number) => number): Promise<number[]> {
  using cache = layer.newCache(4096)
  const outputs: number[] = []
  for (let at = 0; at < T;) {
    const n = Math.min(size(at), T - at)
    const [o] = await layer.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }])
    outputs.push(...o!)
    at += n
    cache.checkIntegrity()
    expect(cache.rows.nRows).toBeLessThanOrEqual(SINK + WINDOW)
  }
  expect(cache.nTokens).toBe(T)
  return outputs
}

const SETTING = `streaming:sink=${SINK},window=${WINDOW}`
/** The same for all sizes and turns. */
const expected = new Map<TestShape, Float64Array>()

function expectedOf(layer: TestLayer): Float64Array {
  const known = expected.get(layer.shape) ?? streamingOracle(layer.oracle(x))
  expected.set(layer.shape, known)
  return known
}

const shapesAndTurns = SHAPES.flatMap((shape) => [2 ** 16, 64, 40].map((turn) => ({ ...shape, shape, turn })))

describe.each(shapesAndTurns)('streaming, $nHead heads on $nHeadKv of $headDim, turns of $turn', ({ shape, turn }) => {
  const method: typeof streaming = { ...streaming, bind: ({ sink, window }) => keepStreaming(sink, window, turn) }

  it.each(SIZES)('is what it says: %s', async (_, size) => {
    using layer = new TestLayer(SETTING, shape, F32, [method])
    expect(relativeError(await run(layer, size), expectedOf(layer))).toBeLessThan(TOLERANCE.f32)
  })
})

describe.each(OTHERS)('streaming, over layers with $name', (shape) => {
  it.each(SIZES)('is what it says: %s', async (_, size) => {
    using layer = new TestLayer(SETTING, shape, F32)
    expect(relativeError(await run(layer, size), expectedOf(layer))).toBeLessThan(TOLERANCE.f32)
  })
})

describe('streaming', () => {
  it('serves layers of several kinds beside each other', async () => {
    const shape: TestShape = { ...SHAPES[1]!, differs: (il) => ({ visible: il % 2 ? { window: 30 } : 'causal' }) }
    using stack = new TestStack(SETTING, shape, F32)
    const whole = stack.oracle(x).stack((layer) => streamingOracle(layer))
    expect(relativeError(await run(stack, (at) => (at < 200 ? 61 : 1)), whole)).toBeLessThan(TOLERANCE.f32)
  })
})
