import { describe, expect, it } from 'vitest'
import { keepStreaming, streaming } from '../../src/attention/keep/streaming.ts'
import { F32 } from '../../src/ggml/types.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import type { Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

const SINK = 3
const WINDOW = 50
const T = 301
const x = normals(N_EMBD * T, 11)
const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
]

/** methods.md §6, token by token: what the cache holds, then itself, all at their places. */
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
    const keys = seen.map((position, place) => oracle.rotate(oracle.k[position]![kv]!, place))
    const p = oracle.probabilities(oracle.rotate(oracle.q[t]![h]!, seen.length - 1), keys)
    return oracle.weigh(
      p,
      seen.map((position) => oracle.v[position]![kv]!),
    )
  })
}

const shapesAndTurns = SHAPES.flatMap((shape) => [2 ** 16, 64, 40].map((turn) => ({ ...shape, turn })))

describe.each(shapesAndTurns)('streaming, $nHead heads on $nHeadKv of $headDim, turns of $turn', ({ turn, ...shape }) => {
  const method: typeof streaming = { ...streaming, bind: ({ sink, window }) => keepStreaming(sink, window, turn) }

  it.each([
    ['at once, as chunks allow', () => 256],
    ['in odd pieces', (at: number) => (at < 150 ? 67 : 13)],
    ['token by token', () => 1],
    ['a prompt, then tokens', (at: number) => (at === 0 ? 120 : 1)],
    ['a prompt, then tokens, then another prompt', (at: number) => (at === 0 ? 120 : at < 160 ? 1 : 61)],
  ])('is what it says: %s', async (_, size) => {
    using layer = new TestLayer(`streaming:sink=${SINK},window=${WINDOW}`, shape, F32, [method])
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
    expect(relativeError(outputs, streamingOracle(layer.oracle(x)))).toBeLessThan(TOLERANCE.f32)
  })
})
