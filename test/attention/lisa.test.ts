import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { sa } from '../../src/attention/share/sa.ts'
import {
  lisaMetadata,
  lisaName,
  lisaShapes,
  type LisaSizes,
  type LisaTensor,
  lisaTensors,
} from '../../src/attention/share/lisa/adapter-file.ts'
import { lisaAdapter } from '../../src/attention/share/lisa/adapter.ts'
import { lisa } from '../../src/attention/share/lisa/lisa.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import { streaming } from '../../src/attention/keep/streaming.ts'
import { layerShapes, type ModelShape } from '../../src/core/shape.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { GgufWriter } from '../../src/weights/gguf-writer.ts'
import { N_LAYER, type StackOracle, TestStack } from '../support/attention-stack.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { conforms, SHAPES as CONFORMING } from '../support/conformance.ts'
import { type TestShape, layerWeights, N_EMBD, ROPE_FREQ_BASE } from '../support/layer-shape.ts'
import { dot, Oracle } from '../support/oracle.ts'
import { normals } from '../support/random.ts'
import { TemporaryFolder } from '../support/reference.ts'

const T = 110
const x = normals(N_EMBD * T, 31)
const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
]

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

type Values = Record<LisaTensor, Float32Array>
interface Adapter extends LisaSizes {
  readonly layers: readonly number[]
  readonly of: (il: number) => Values
}

const modelShape = ({ differs, ...shape }: TestShape): ModelShape => {
  const model = { arch: 'test', nLayer: N_LAYER, nEmbd: N_EMBD, nFf: 1, nVocab: 1, nCtxTrain: 4096, ...shape }
  return { ...model, layers: layerShapes(model, differs) }
}

async function write(path: string, shape: TestShape, adapter: Adapter): Promise<string> {
  const shapes = lisaShapes(modelShape(shape), adapter)
  const all = adapter.layers.flatMap((il) => {
    const values = adapter.of(il)
    return lisaTensors(adapter).map((tensor) => ({
      name: lisaName(il, tensor),
      type: F32,
      ne: shapes[tensor],
      data: values[tensor],
    }))
  })
  await using writer = await GgufWriter.create(path, { metadata: lisaMetadata('a base', adapter, adapter.layers), tensors: all })
  for (const { data } of all) await writer.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  await writer.finish()
  return path
}

const periods = (headDim: number, pairs: readonly number[]) =>
  Float32Array.from(pairs, (pair) => ROPE_FREQ_BASE ** ((2 * pair) / headDim))
const identity = (n: number) => Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0))
const all = (n: number) => Array.from({ length: n }, (_, i) => i)

/** The layers' own queries and keys, and nothing of the layer before. */
function whole(shape: TestShape, layers: readonly number[], hidden = 3): Adapter {
  const { nHead: H, headDim } = shape
  const of = (il: number): Values => {
    const { q, k } = layerWeights(shape, il)
    const inner = normals(H * hidden, il)
    return {
      q,
      k,
      align: new Float32Array(H * H),
      inner,
      outer: new Float32Array(H * hidden),
      period: periods(headDim, all(headDim / 2)),
    }
  }
  return { rank: headDim, hidden, layers, of }
}

/** Everything at random. */
function some(shape: TestShape, layers: readonly number[], sizes: LisaSizes): Adapter {
  const { nHead: H, nHeadKv: G, headDim } = shape
  const { rank, hidden } = sizes
  const of = (il: number): Values => ({
    q: normals(N_EMBD * H * rank, 10 * il + 1).map((w) => w / 6),
    k: normals(N_EMBD * G * rank, 10 * il + 2).map((w) => w / 6),
    align: normals(H * H, 10 * il + 3).map((w) => w / 3),
    inner: normals(H * hidden, 10 * il + 4),
    outer: normals(H * hidden, 10 * il + 5).map((w) => w / 3),
    period: periods(
      headDim,
      all(rank / 2).map((i) => 2 * i + 1),
    ),
  })
  return { ...sizes, layers, of }
}

/** The scores of the layer before, as they are. */
const plain = (shape: TestShape, layers: readonly number[]): Adapter => {
  const adapter = some(shape, layers, { rank: 4, hidden: 2 })
  const of = (il: number) => {
    const values = adapter.of(il)
    return { ...values, align: identity(shape.nHead), q: values.q.fill(0), outer: values.outer.fill(0) }
  }
  return { ...adapter, of }
}

type Scores = Float64Array[][]
/** Positions that token t sees, ascending, itself last. Keys stand at their places in the list. */
type Seen = (t: number) => readonly number[]

/** methods.md §5.2, plain loops: S_l = A · S_l-1 + W2 · silu(W1 · S_l-1) + Q'K'ᵀ / √r; P = softmax(S); O = P · V. */
function lisaOracle(stack: StackOracle, { rank, hidden, layers, of }: Adapter, seen: Seen = (t) => all(t + 1)): Float64Array {
  let scores: Scores = []
  return stack.stack((layer, il) => {
    const { shape } = layer
    const { nHead: H, nHeadKv: G } = shape
    const kvOf = (h: number) => Math.floor(h / (H / G))
    if (!layers.includes(il)) scores = products(layer, periods(shape.headDim, all(shape.headDim / 2)), seen)
    else {
      const { q, k, align, inner, outer, period } = of(il)
      const low = new Oracle({ ...shape, headDim: rank }, { q, k, v: k, output: new Float32Array(0) }, layer.x)
      const corrections = products(low, period, seen)
      scores = scores.map((heads, t) =>
        heads.map((_, h) =>
          corrections[t]![h]!.map((correction, j) => {
            let sum = correction
            for (let from = 0; from < H; from++) sum += align[h * H + from]! * heads[from]![j]!
            for (let m = 0; m < hidden; m++) {
              let y = 0
              for (let from = 0; from < H; from++) y += inner[m * H + from]! * heads[from]![j]!
              sum += outer[h * hidden + m]! * (y / (1 + Math.exp(-y)))
            }
            return sum
          }),
        ),
      )
    }
    return layer.layer((t, h) => {
      const values = seen(t).map((position) => layer.v[position]![kvOf(h)]!)
      return layer.weigh(softmax(scores[t]![h]!), values)
    })
  })
}

function softmax(scores: Float64Array): Float64Array {
  const most = Math.max(...scores)
  const weights = scores.map((s) => Math.exp(s - most))
  const total = weights.reduce((a, b) => a + b, 0)
  return weights.map((w) => w / total)
}

/** q · k / √d by token, head and place. */
function products({ q, k, shape }: Oracle, period: Float32Array, seen: Seen): Scores {
  const turn = (head: Float64Array, place: number) => {
    const turned = head.slice()
    for (const [i, p] of period.entries()) {
      const [a, b, angle] = [head[2 * i]!, head[2 * i + 1]!, place / p]
      turned[2 * i] = a * Math.cos(angle) - b * Math.sin(angle)
      turned[2 * i + 1] = a * Math.sin(angle) + b * Math.cos(angle)
    }
    return turned
  }
  return q.map((heads, t) =>
    heads.map((head, h) => {
      const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
      const list = seen(t)
      const query = turn(head, list.length - 1)
      return Float64Array.from(list, (position, place) => dot(query, turn(k[position]![kv]!, place)) / Math.sqrt(shape.headDim))
    }),
  )
}

async function outputs(stack: TestStack, size: (at: number) => number): Promise<number[]> {
  using cache = stack.newCache(1024)
  const rows: number[] = []
  for (let at = 0; at < T;) {
    const n = Math.min(size(at), T - at)
    rows.push(...(await stack.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }]))[0]!)
    at += n
  }
  return rows
}

const SIZES = [() => T, (at: number) => (at < 90 ? 45 : 1)]

describe.each(SHAPES)('lisa, $nHead heads on $nHeadKv of $headDim', (shape) => {
  it.each([
    [[2, 3], { rank: 6, hidden: 5 }],
    [[1, 2, 3, 4], { rank: 2, hidden: 8 }],
    [[1, 3], { rank: 8, hidden: 0 }],
  ])('is what it says: layers %j, %j', async (layers, sizes) => {
    const adapter = some(shape, layers, sizes)
    using stack = new TestStack({ method: 'lisa', adapter: await write(folder.file('some.gguf'), shape, adapter) }, shape, F32)
    const expected = lisaOracle(stack.oracle(x), adapter)
    for (const size of SIZES) expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
    expect(relativeError(expected, stack.oracle(x).dense())).toBeGreaterThan(0.1)
  })

  it.each([2, 8, 16])('over an f16 cache, where keys of rank %i are multiplied several at a time', async (rank) => {
    const adapter = some(shape, [2, 3], { rank, hidden: 2 })
    const path = await write(folder.file('some.gguf'), shape, adapter)
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F16)
    const expected = lisaOracle(stack.oracle(x), adapter)
    expect(relativeError(await outputs(stack, SIZES[1]!), expected)).toBeLessThan(4 * TOLERANCE.f16)
  })

  it('with full rank and a network of zeros is dense', async () => {
    const path = await write(folder.file('whole.gguf'), shape, whole(shape, [1, 2, 4]))
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F32)
    for (const size of SIZES)
      expect(relativeError(await outputs(stack, size), stack.oracle(x).dense())).toBeLessThan(TOLERANCE.f32)
  })

  it('with the identity and no correction is shared attention', async () => {
    const path = await write(folder.file('plain.gguf'), shape, plain(shape, [2, 3]))
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F32)
    using shared = new TestStack('sa:layers=2-3', shape, F32)
    for (const size of SIZES) expect(relativeError(await outputs(stack, size), await outputs(shared, size))).toBeLessThan(1e-5)
  })

  it('that replaces nothing is dense, to the bit', async () => {
    const path = await write(folder.file('none.gguf'), shape, some(shape, [], { rank: 2, hidden: 2 }))
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F32)
    using dense = new TestStack('dense', shape, F32)
    for (const size of SIZES) expect(await outputs(stack, size)).toEqual(await outputs(dense, size))
  })

  it('decodes to what a prompt ends with', async () => {
    const path = await write(folder.file('some.gguf'), shape, some(shape, [1, 2, 4], { rank: 6, hidden: 5 }))
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F32)
    const [prompt, decoded] = [await outputs(stack, () => T), await outputs(stack, (at) => (at === 0 ? T - 1 : 1))]
    expect(relativeError(decoded.slice(-N_EMBD), prompt.slice(-N_EMBD))).toBeLessThan(1e-5)
  })

  it('over streaming sees what streaming keeps, at its places', async () => {
    const adapter = some(shape, [1, 2, 4], { rank: 6, hidden: 5 })
    const path = await write(folder.file('some.gguf'), shape, adapter)
    using stack = new TestStack([{ method: 'lisa', adapter: path }, 'streaming:sink=3,window=40'], shape, F32)
    const seen = (t: number) => [...all(Math.min(3, t)), ...all(t).slice(3).slice(-40), t]
    const expected = lisaOracle(stack.oracle(x), adapter, seen)
    for (const size of SIZES) expect(relativeError(await outputs(stack, size), expected)).toBeLessThan(TOLERANCE.f32)
  })

  it('keeps r of the d elements of every key in the layers it replaces', async () => {
    const path = await write(folder.file('some.gguf'), shape, some(shape, [2, 3], { rank: 4, hidden: 2 }))
    using stack = new TestStack({ method: 'lisa', adapter: path }, shape, F16)
    const { layers } = stack.attention.layout({ k: F16, v: F16 })
    expect(layers.map(({ k }) => k!.width)).toEqual([shape.headDim, shape.headDim, 4, 4, shape.headDim])
    expect(layers.map(({ v }) => v!.width)).toEqual(Array(5).fill(shape.headDim))
  })
})

describe('conformance', async () => {
  const pathOf = (kind: string, { nHead, nHeadKv, headDim }: TestShape) =>
    folder.file(`${kind}-${nHead}-${nHeadKv}-${headDim}.gguf`)
  // Before tests are collected: which shapes a method is tested with depends on what it refuses.
  for (const shape of CONFORMING) {
    await write(pathOf('whole', shape), shape, whole(shape, [2, 3]))
    await write(pathOf('some', shape), shape, some(shape, [2, 3], { rank: 6, hidden: 5 }))
  }
  const { needs: _, ...rest } = lisa
  const known: typeof lisa = {
    ...rest,
    refuses: ({ ...shape }, { adapter }) => lisa.refuses!(shape, { adapter: pathOf(adapter!, shape) }),
    bind: ({ adapter }, shape) => lisa.bind({ adapter: pathOf(adapter!, shape) }, shape),
  }
  conforms([[known], [known, streaming]], [known, streaming, sa])
})

it('an adapter is read once for a model', async () => {
  const path = await write(folder.file('once.gguf'), SHAPES[0]!, some(SHAPES[0]!, [2], { rank: 4, hidden: 2 }))
  const shape = modelShape(SHAPES[0]!)
  expect(lisaAdapter(path, { ...shape })).toBe(lisaAdapter(path, shape))
  expect(lisaAdapter(path, modelShape(SHAPES[0]!))).not.toBe(lisaAdapter(path, shape))
})

describe('what is no adapter of the model is refused', () => {
  const shape = SHAPES[0]!
  const refusal = (path: string, of: ModelShape = modelShape(shape)): string => {
    try {
      attentionFor({ method: 'lisa', adapter: path }, of)
      return 'nothing'
    } catch (error) {
      return (error as Error).message
    }
  }

  it.each([
    ['no file given', '', 'lisa:adapter=FILE'],
    ['no such file', '/nowhere/a.gguf', "no model at '/nowhere/a.gguf': no such file"],
    ['a folder', '/', 'it is a folder'],
  ])('%s', (_, path, reason) => expect(refusal(path)).toContain(reason))

  it('a model, another base, other shapes, other layers', async () => {
    const path = await write(folder.file('refused.gguf'), shape, some(shape, [2], { rank: 4, hidden: 2 }))
    expect(refusal(path)).toBe('nothing')
    const base = (fingerprint: string) => ({ path: 'm.gguf', fingerprint, resources: {}, takesPaths: true })
    expect(refusal(path, { ...modelShape(shape), base: base('another base') })).toMatch(
      /was made for another model than 'm.gguf'/,
    )
    expect(refusal(path, { ...modelShape(shape), base: base('a base') })).toBe('nothing')
    expect(refusal(path, modelShape({ ...shape, nHead: 8 }))).toMatch(
      /has 'blk.2.lisa_q.weight' as \[48, 16, 1, 1\], not \[48, 32\]/,
    )
    expect(refusal(path, { ...modelShape(shape), nLayer: 2 })).toMatch(/has no list of layers from 1 to 1/)
    expect(refusal(path, { ...modelShape(shape), headDim: 2 })).toMatch(/has no usable lisa.rank/)
  })

  it('paths, on a server whose requests have names for files', async () => {
    const path = await write(folder.file('named.gguf'), shape, some(shape, [2], { rank: 4, hidden: 2 }))
    const of = (resources: Record<string, string>): ModelShape => ({
      ...modelShape(shape),
      base: { path: 'm.gguf', fingerprint: 'a base', resources, takesPaths: false },
    })
    expect(refusal('demo', of({ demo: path }))).toBe('nothing')
    const known = "it knows 'demo' (start the server with --adapter NAME=PATH)"
    for (const name of [path, '/nowhere', 'constructor', '__proto__']) {
      expect(refusal(name, of({ demo: path }))).toContain(`this server knows no file '${name.slice(0, 60)}': ${known}`)
    }
    expect(refusal(path, of({}))).toContain('it knows none')
  })

  it.each([
    ['windows', { visible: { window: 9 } }, 'layer 3 does not see all tokens'],
    ['capped scores', { softcap: 50 }, 'its scores are capped (layer 3: 50)'],
    ['heads of another number', { nHeadKv: 2 }, 'layer 3 has 4 heads on 2, and layer 0 has 4 heads on 4'],
  ] as const)('of layers with %s', (_, differs, reason) => {
    expect(refusal('any', modelShape({ ...shape, differs: (il) => (il === 3 ? differs : {}) }))).toContain(reason)
  })

  it('numbers that are none, missing tensors, files cut short', async () => {
    const adapter = some(shape, [2], { rank: 4, hidden: 2 })
    const path = folder.file('damaged.gguf')
    await write(path, shape, { ...adapter, of: (il) => ({ ...adapter.of(il), align: new Float32Array(16).fill(NaN) }) })
    expect(refusal(path)).toMatch(/numbers in 'blk.2.lisa_align.weight' that cannot be/)
    await write(path, shape, { ...adapter, of: (il) => ({ ...adapter.of(il), period: new Float32Array(2) }) })
    expect(refusal(path)).toMatch(/numbers in 'blk.2.lisa_period.weight' that cannot be/)
    await write(path, shape, adapter)
    const bytes = readFileSync(path)
    const other = folder.file('renamed.gguf')
    writeFileSync(other, Buffer.from(bytes.toString('latin1').replace('lisa_align', 'lisa_alien'), 'latin1'))
    expect(refusal(other)).toMatch(/has no tensor 'blk.2.lisa_align.weight'/)
    for (let size = 0; size < bytes.length; size += 1 + Math.floor(bytes.length / 97)) {
      writeFileSync(other + size, bytes.subarray(0, size))
      expect(refusal(other + size), String(size)).not.toBe('nothing')
    }
  })

  it.each([
    ['hip', 'hip cannot work together'],
    ['sparq', 'sparq cannot work together'],
    ['h2o', 'h2o keeps other rows in each'],
    ['sa', 'answer the same question'],
  ])('with %s', (other, reason) => {
    expect(() => attentionFor(`lisa+${other}`, modelShape(shape))).toThrow(reason)
  })
})
