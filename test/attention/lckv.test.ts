import { describe, expect, it } from 'vitest'
import { lckv } from '../../src/attention/share/lckv.ts'
import { keepStreaming, streaming } from '../../src/attention/keep/streaming.ts'
import { type LayerSharing, parseLayerTypes } from '../../src/core/layer-types.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { TILE } from '../../src/kv/layout.ts'
import type { Store } from '../../src/kv/store.ts'
import { N_LAYER, type StackOracle, TestStack } from '../support/attention-stack.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { courseOf, decode, EARLY, LATE, ofTokens, restored } from '../support/course.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { normals } from '../support/random.ts'

const T = 40
const x = normals(N_EMBD * T, 51)
const token = (t: number) => x.subarray(t * N_EMBD, (t + 1) * N_EMBD)

const sharing = (types: string, forceNodiag = false): LayerSharing => ({
  reads: parseLayerTypes(types, N_LAYER) as readonly number[],
  forceNodiag,
  forwardPasses: 7,
  backwardPasses: 2,
})
const shape = (types: string, forceNodiag = false) => ({
  nHead: 4,
  nHeadKv: 2,
  headDim: 32,
  sharing: sharing(types, forceNodiag),
})

/** Models of every kind: condensed, sandwich-middle, keys of lower layers, two groups. */
const KINDS = [
  ['0_3x3_4', false],
  ['0_3x3_4', true],
  ['0_2x3_4', false],
  ['0_0_2_2_4', false],
  ['1_1_4_4_4', false],
] as const

/** Keys before rotation, or values, of a layer: by token and head. */
type Rows = Map<number, readonly Float64Array[]>

interface Visible {
  readonly il: number
  readonly xt: Float64Array
  /** Where the query stands, and the tokens it sees with theirs. */
  readonly at: number
  readonly keys: readonly (readonly [t: number, at: number])[]
}

/** What layer `il` adds to a token, from the keys and values of the layer that it reads. */
function attendTo(oracle: StackOracle, { il, xt, at, keys }: Visible, k: readonly Rows[], v: readonly Rows[]): Float64Array {
  const layer = oracle.at(il, xt)
  const { nHead, nHeadKv, headDim, sharing } = oracle.shape
  const target = sharing!.reads[il]!
  return layer.layer((_, h) => {
    if (keys.length === 0) return new Float64Array(headDim)
    const kv = Math.floor(h / (nHead / nHeadKv))
    const rotated = keys.map(([t, place]) => layer.rotate(k[target]!.get(t)![kv]!, place))
    return layer.weigh(
      layer.probabilities(layer.rotate(layer.q[0]![h]!, at), rotated),
      keys.map(([t]) => v[target]!.get(t)![kv]!),
    )
  })
}

/** methods.md §4.3, one token after another; with a window also §6: places in the cache are positions. */
function sequential(oracle: StackOracle, { nTokens = T, sink = 0, window = Infinity } = {}): Float64Array {
  const { reads, forceNodiag } = oracle.shape.sharing!
  const k = reads.map((): Rows => new Map())
  const v = reads.map((): Rows => new Map())
  const outputs: number[] = []
  for (let t = 0; t < nTokens; t++) {
    let xt = Float64Array.from(token(t))
    const seen = Array.from({ length: t + 1 }, (_, i) => i).filter((i) => i < sink || i >= t - window)
    const keys = seen.map((i, place) => [i, place] as const)
    for (const [il, target] of reads.entries()) {
      const layer = oracle.at(il, xt)
      if (target === il) {
        k[il]!.set(t, layer.k[0]!)
        v[il]!.set(t, layer.v[0]!)
      }
      const isStrict = target > il || forceNodiag
      const visible = { il, xt, at: keys.length - 1, keys: isStrict ? keys.slice(0, -1) : keys }
      const added = attendTo(oracle, visible, k, v)
      xt = xt.map((value, i) => value + added[i]!)
    }
    outputs.push(...xt)
  }
  return Float64Array.from(outputs)
}

/** §4.3, all tokens at once: the group of layers first … last run `passes` times, the target's keys and values zeros at first. */
function iterated(oracle: StackOracle, passes: number, nTokens = T): Float64Array {
  const { reads, forceNodiag } = oracle.shape.sharing!
  const { nHeadKv, headDim } = oracle.shape
  const none = Array.from({ length: nHeadKv }, () => new Float64Array(headDim))
  const zeros = (): Rows => new Map(Array.from({ length: nTokens }, (_, t) => [t, none]))
  const k = reads.map(zeros)
  const v = reads.map(zeros)
  const run = (il: number, xs: Float64Array[]) => {
    if (reads[il] === il) {
      for (const [t, xt] of xs.entries()) {
        const layer = oracle.at(il, xt)
        k[il]!.set(t, layer.k[0]!)
        v[il]!.set(t, layer.v[0]!)
      }
    }
    return xs.map((xt, t) => {
      const n = reads[il]! > il || forceNodiag ? t : t + 1
      const keys = Array.from({ length: n }, (_, i) => [i, i] as const)
      const added = attendTo(oracle, { il, xt, at: t, keys }, k, v)
      return xt.map((value, i) => value + added[i]!)
    })
  }
  let xs = Array.from({ length: nTokens }, (_, t) => Float64Array.from(token(t)))
  for (let il = 0; il < N_LAYER; il++) {
    const last = reads[il]! // in the models of this test a group ends with the layer that its first reads
    for (let pass = 1; pass < (last > il ? passes : 1); pass++) {
      let again = xs
      for (let i = il; i <= last; i++) again = run(i, again)
    }
    xs = run(il, xs)
    for (; il < last; il++) xs = run(il + 1, xs)
  }
  return Float64Array.from(xs.flatMap((xt) => [...xt]))
}

async function outputs(stack: TestStack, size: (at: number) => number, of = x): Promise<Float32Array> {
  using cache = stack.newCache(1024)
  const all: number[] = []
  for (let at = 0; at < T;) {
    const n = Math.min(size(at), T - at)
    all.push(...(await stack.attend([{ cache, x: of.subarray(at * N_EMBD, (at + n) * N_EMBD) }], at + n >= T))[0]!)
    at += n
    cache.checkIntegrity()
  }
  return Float32Array.from(all)
}

describe.each(KINDS)('lckv, layers %s, force_nodiag %s', (types, forceNodiag) => {
  it('decodes as the formulas say, token by token', async () => {
    using stack = new TestStack('lckv', shape(types, forceNodiag), F32)
    expect(relativeError(await outputs(stack, () => 1), sequential(stack.oracle(x)))).toBeLessThan(TOLERANCE.f32)
  })

  it('reads a prompt exactly with as many passes as tokens, also in pieces and followed by tokens', async () => {
    using stack = new TestStack(`lckv:iterations=${T}`, shape(types, forceNodiag), F32)
    const expected = sequential(stack.oracle(x))
    for (const size of [() => T, (at: number) => (at < 30 ? 13 : 1), (at: number) => (at === 0 ? 1 : 17)]) {
      expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    }
  })
})

describe.each([false, true])('lckv with few passes, force_nodiag %s', (forceNodiag) => {
  it.each([1, 2, 3, 9])('does what %s iterations from zeros do; the first tokens are exact', async (iterations) => {
    using stack = new TestStack(`lckv:iterations=${iterations}`, shape('0_3x3_4', forceNodiag), F32)
    const all = await outputs(stack, () => T)
    expect(relativeError(all, iterated(stack.oracle(x), iterations))).toBeLessThan(TOLERANCE.f32)
    const exact = sequential(stack.oracle(x), { nTokens: iterations })
    expect(relativeError(all.subarray(0, iterations * N_EMBD), exact)).toBeLessThan(TOLERANCE.f32)
  })

  it('comes closer with every few passes', async () => {
    const errors: number[] = []
    for (const iterations of [1, 2, 4, 8, 12]) {
      using stack = new TestStack(`lckv:iterations=${iterations}`, shape('0_3x3_4', forceNodiag), F32)
      errors.push(relativeError(await outputs(stack, () => T), sequential(stack.oracle(x))))
    }
    expect(errors.every((error, i) => i === 0 || error < errors[i - 1]!)).toBe(true)
    expect(errors[0]).toBeGreaterThan(0.05)
    expect(errors.at(-1)).toBeLessThan(0.001)
  })

  it.each([1, 2, 5, T])('no output sees a later token, with %s passes', async (iterations) => {
    using stack = new TestStack(`lckv:iterations=${iterations}`, shape('0_3x3_4', forceNodiag), F32)
    const changed = x.slice().fill(1, 30 * N_EMBD)
    const [a, b] = [await outputs(stack, () => T), await outputs(stack, () => T, changed)]
    expect(a.subarray(0, 30 * N_EMBD)).toEqual(b.subarray(0, 30 * N_EMBD))
    expect(a.subarray(30 * N_EMBD)).not.toEqual(b.subarray(30 * N_EMBD))
  })
})

describe('lckv', () => {
  const ORDINARY = { nHead: 4, nHeadKv: 2, headDim: 32 }

  it('of layers that read themselves is dense, to the bit', async () => {
    using stack = new TestStack('lckv', shape('0_1_2_3_4'), F32)
    using dense = new TestStack('dense', ORDINARY, F32)
    const size = (at: number) => (at === 0 ? 30 : 1)
    expect(await outputs(stack, size)).toEqual(await outputs(dense, size))
  })

  it('keeps the layers that are read, and no others', async () => {
    using stack = new TestStack('lckv', shape('0_3x3_4'), F16)
    using dense = new TestStack('dense', ORDINARY, F16)
    using cache = stack.newCache(1024)
    using whole = dense.newCache(1024)
    for (const each of [cache, whole]) each.append(1024)
    expect(cache.owned.map(([il]) => il)).toEqual([0, 3, 4])
    expect(cache.bytesHeld).toBe((3 / 5) * whole.bytesHeld)
    const keysRead = (n: number) => stack.attention.cost(cache, stack.attention.facts(cache, n)).read
    // Layers 1 and 2 read a prompt in nine passes, or as many as it has tokens.
    const perLayer = (n: number) => 2 * (n * 1024 + (n * (n + 1)) / 2)
    expect(keysRead(1)).toBe(perLayer(1) * 5)
    expect(keysRead(20)).toBe(perLayer(20) * (1 + 9 + 9 + 1 + 1))
    expect(keysRead(2)).toBe(perLayer(2) * (1 + 2 + 2 + 1 + 1))
    cache.truncate(7)
    expect(cache.nTokens).toBe(7)
  })

  it('adds nothing to the first token in condensed layers', async () => {
    using stack = new TestStack('lckv', shape('0_3x3_4', true), F32)
    using cache = stack.newCache(64)
    const [o] = await stack.attend([{ cache, x: token(0) }])
    expect(o).toEqual(token(0)) // force_nodiag: in no layer is there anything to see
  })

  it('in one step with others gives each what it gets alone', async () => {
    using stack = new TestStack('lckv', shape('0_3x3_4'), F32)
    const before = [0, 20, 0, 5, 33]
    const counts = [30, 1, 3, 12, 1]
    const parts = async () =>
      await Promise.resolve(
        before
          .map((n) => ({ cache: stack.newCache(64), n }))
          .map(({ cache, n }) => ({ cache, first: x.subarray(0, n * N_EMBD), n })),
      )
    const alone: Float32Array[] = []
    const together: { cache: ReturnType<TestStack['newCache']>; x: Float32Array }[] = []
    for (const each of [false, true]) {
      for (const [i, { cache, first, n }] of (await parts()).entries()) {
        if (n > 0) await stack.attend([{ cache, x: first }])
        const part = { cache, x: x.subarray(n * N_EMBD, (n + counts[i]!) * N_EMBD) }
        if (each) together.push(part)
        else alone.push((await stack.attend([part]))[0]!)
      }
    }
    const all = await stack.attend(together)
    for (const [i, o] of all.entries()) expect(relativeError(o, alone[i]!)).toBeLessThan(1e-5)
    for (const { cache } of together) cache[Symbol.dispose]()
  })

  it('is how its models attend in every setting, as many times as they were trained with', async () => {
    const of = (setting: string) => new TestStack(setting, shape('0_3x3_4'), F32).attention
    expect(of('dense').spec).toBe('dense')
    expect(of('lckv:iterations=3+hip').spec).toBe('lckv:iterations=3+hip')
    expect([of('dense').nPasses(20), of('lckv').nPasses(20), of('lckv:iterations=3').nPasses(20), of('lckv').nPasses(4)]).toEqual(
      [9, 9, 3, 4],
    )
    using dense = new TestStack('dense', shape('0_3x3_4'), F32)
    using stack = new TestStack('lckv', shape('0_3x3_4'), F32)
    const size = (at: number) => (at === 0 ? 30 : 1)
    expect(await outputs(stack, size)).toEqual(await outputs(dense, size))
  })

  it('is refused where nothing is shared, and beside what shares otherwise', () => {
    const of = (setting: string) => new TestStack(setting, shape('0_3x3_4'), F32).attention
    expect(() => of('lckv+sa')).toThrow('lckv and sa answer the same question')
    expect(() => of('h2o')).toThrow("h2o cannot serve this model: its layers read each other's keys")
    expect(() => of('lckv+h2o')).toThrow('lckv uses rows of one layer in another, and h2o keeps other rows in each')
    expect(() => new TestStack('lckv', ORDINARY, F32)).toThrow(
      'lckv cannot serve this model: each of its layers has keys and values of its own',
    )
  })
})

describe('lckv together with', () => {
  const TIGHT = {
    streaming: 'streaming:sink=2,window=9',
    hip: 'hip:dense_layers=0,k=8,block_k=2,window=4,sink=2,block_q=1,stride_q=1,refresh=1',
    sparq: 'sparq:k=8,r=8,from=0',
  }

  it.each([
    'streaming:window=64',
    'hip:dense_layers=0,k=64,block_k=4,window=8,sink=0',
    'sparq:k=64,r=8,from=0',
    'streaming:window=64+sparq:k=64,r=8,from=0',
  ])('%s of enough budget is lckv', async (setting) => {
    for (const forceNodiag of [false, true]) {
      using stack = new TestStack(`lckv:iterations=${T}+${setting}`, shape('0_3x3_4', forceNodiag), F32)
      const expected = sequential(stack.oracle(x))
      for (const size of [() => T, (at: number) => (at < 20 ? 20 : 1), () => 1]) {
        expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
      }
    }
  })

  it.each([
    [false, 2 ** 16],
    [true, 2 ** 16],
    [false, 13],
    [true, 8],
  ])('streaming is what it says, force_nodiag %s, turns of %s', async (forceNodiag, turn) => {
    const method: typeof streaming = { ...streaming, bind: ({ sink, window }) => keepStreaming(sink, window, turn) }
    const setting = `lckv:iterations=${T}+${TIGHT.streaming}`
    using stack = new TestStack(setting, shape('0_3x3_4', forceNodiag), F32, [lckv, method])
    const expected = sequential(stack.oracle(x), { sink: 2, window: 9 })
    for (const size of [() => T, (at: number) => (at < 25 ? 7 : 1), () => 1]) {
      expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    }
  })

  it.each([false, true])('hip reads prompts as it decodes, force_nodiag %s', async (forceNodiag) => {
    using stack = new TestStack(`lckv:iterations=${T}+${TIGHT.hip}`, shape('0_3x3_4', forceNodiag), F32)
    const expected = await outputs(stack, () => 1)
    expect(relativeError(await outputs(stack, () => T), expected)).toBeLessThan(TOLERANCE.f32)
    expect(relativeError(expected, sequential(stack.oracle(x)))).toBeGreaterThan(0.01)
  })

  it.each(['dense', ...Object.values(TIGHT), `${TIGHT.streaming}+${TIGHT.sparq}`])(
    '%s: what lies in the row of the new token is not seen before it is written',
    async (setting) => {
      for (const forceNodiag of [false, true]) {
        using stack = new TestStack(setting, shape('0_3x3_4', forceNodiag), F32)
        const results: Float32Array[] = []
        for (const garbage of [0, 3]) {
          using cache = stack.newCache(64)
          await stack.attend([{ cache, x: x.subarray(0, 38 * N_EMBD) }])
          await stack.attend([{ cache, x: token(38) }])
          for (const [, { k, v, stores, rows }] of cache.owned) {
            for (const store of [k, v, stores['kT']]) scribble(store, rows[0]!.nextRow(0), garbage)
          }
          results.push((await stack.attend([{ cache, x: token(39) }]))[0]!)
        }
        expect(results[1]).toEqual(results[0])
      }
    },
  )

  it('sparq keeps the mean of what the condensed layers saw', async () => {
    using stack = new TestStack('lckv:iterations=40+sparq:k=8,r=8,from=0', shape('0_3x3_4'), F32)
    using cache = stack.newCache(64)
    await stack.attend([{ cache, x: x.subarray(0, 30 * N_EMBD) }])
    for (let t = 30; t < T; t++) await stack.attend([{ cache, x: token(t) }])
    const { v, stores } = cache.layers[1]!
    expect(stores['mean']).toBe(cache.layers[3]!.stores['mean'])
    const mean = stores['mean']!.data() as Float32Array
    const { at } = cache.memo.read as { at: number }
    for (let head = 0; head < 2; head++) {
      for (let c = 0; c < 32; c++) {
        let sum = 0
        for (let t = 0; t < T; t++) sum += (v.data() as Float32Array)[(head * v.capacity + t) * 32 + c]!
        expect(mean[(2 * head + at) * 32 + c]).toBeCloseTo(sum / T, 5)
      }
    }
  })
})

describe('a model that shares goes on as if nothing had been', () => {
  const SETTINGS = [
    'lckv:iterations=3',
    'lckv:iterations=3+streaming:sink=3,window=60',
    'lckv:iterations=3+sparq:k=40,r=8,from=0',
  ]

  it.each(SETTINGS)('from a fork and from a restored copy, with graphs of before and new ones: %s', async (setting) => {
    using stack = new TestStack(setting, shape('0_3x3_4'), F32)
    using course = await courseOf(stack)
    using fork = course.early.fork()
    using copy = await restored(course.early, course.bytes)
    const expected = ofTokens(course.outputs, EARLY, LATE)
    expect(await decode(stack, fork, EARLY, LATE)).toEqual(expected)
    for (let at = EARLY; at < LATE; at++) {
      stack.forgetPlan()
      expect(await decode(stack, copy, at, at + 1)).toEqual(ofTokens(course.outputs, at, at + 1))
    }
  })

  it.each(SETTINGS)('after steps that failed: %s', async (setting) => {
    using stack = new TestStack(setting, shape('0_3x3_4'), F32)
    using cache = stack.newCache(1024)
    using unharmed = stack.newCache(1024)
    for (const n of [30, 1, 1, 7, 1]) {
      const at = cache.nTokens
      const part = { x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }
      await stack.computeOnly([{ cache, x: x.slice(0, n * N_EMBD).fill(0.5) }])
      expect(await stack.attend([{ cache, ...part }])).toEqual(await stack.attend([{ cache: unharmed, ...part }]))
    }
  })
})

/** Fills a token's row of every head with a number. */
function scribble(store: Store | undefined, row: number, value: number): void {
  if (store === undefined) return
  const { width, nHead, order } = store.layout
  const data = store.data() as Float32Array
  for (let head = 0; head < nHead; head++) {
    for (let c = 0; c < width; c++) {
      const at = order === 'rows' ? row * width + c : Math.floor(row / TILE) * TILE * width + c * TILE + (row % TILE)
      data[head * width * store.capacity + at] = value
    }
  }
}
