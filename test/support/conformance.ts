/** What every method, and every pair that may work together, holds to (design: ten properties). */
import { describe, expect, it } from 'vitest'
import { conflictOf } from '../../src/attention/catalogue.ts'
import type { AnyMethod } from '../../src/attention/method.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import type { KvCache } from '../../src/kv/cache.ts'
import { TestLayer } from './attention-layer.ts'
import { N_LAYER, TestStack } from './attention-stack.ts'
import { relativeError, TOLERANCE } from './close.ts'
import { N_EMBD, type TestShape } from './layer-shape.ts'
import { type MethodOptions, optionsFor } from './method-options.ts'
import { normals } from './random.ts'
import { mappedResidentBytes } from './smaps.ts'

export const SHAPES = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
  { nHead: 2, nHeadKv: 2, headDim: 128 },
]
const PROMPT = 301
const T = PROMPT + 30
const x = normals(N_EMBD * T, 21)
const tokens = (from: number, to: number) => x.subarray(from * N_EMBD, to * N_EMBD)

export const settingOf = (methods: readonly AnyMethod[], kind: keyof MethodOptions): AttentionSetting =>
  methods.map((method) => ({ method: method.name, ...optionsFor(method)[kind](T) }))

/** Reads a prompt in pieces of at most `size(at)` tokens. */
async function readPrompt(
  layer: TestLayer,
  cache: KvCache,
  size: (at: number) => number,
  nPrompt = PROMPT,
  from = x,
): Promise<number[]> {
  const outputs: number[] = []
  for (let at = 0; at < nPrompt;) {
    const n = Math.min(size(at), nPrompt - at, layer.attention.maxChunk(cache))
    const [o] = await layer.attend([{ cache, x: from.subarray(at * N_EMBD, (at + n) * N_EMBD) }], at + n === nPrompt)
    outputs.push(...o!)
    at += n
    cache.checkIntegrity()
  }
  return outputs
}

async function decode(layer: TestLayer, cache: KvCache, from: number, to: number): Promise<number[]> {
  const outputs: number[] = []
  for (let at = from; at < to; at++) outputs.push(...(await layer.attend([{ cache, x: tokens(at, at + 1) }]))[0]!)
  return outputs
}

/** The model that a setting is tested with: methods by which layers share need several. */
const stackFor = (methods: readonly AnyMethod[]) => (methods.some(({ axis }) => axis === 'share') ? TestStack : TestLayer)
export const nLayersFor = (methods: readonly AnyMethod[]): number => (stackFor(methods) === TestStack ? N_LAYER : 1)

/** Dense attention by plain loops takes longer than what is compared with it. */
const denseOf = new Map<string, Float64Array>()

function dense(layer: TestLayer): Float64Array {
  const key = `${layer.constructor.name}:${JSON.stringify(layer.modelShape.layers)}`
  const known = denseOf.get(key) ?? layer.oracle(x).dense()
  denseOf.set(key, known)
  return known
}

/** A copy that went through bytes. */
async function restored(cache: KvCache): Promise<KvCache> {
  const pieces: Uint8Array[] = []
  await cache.save(async (bytes) => void pieces.push(bytes.slice()))
  const all = Buffer.concat(pieces)
  let at = 0
  return await cache.restore(async (into) => {
    into.set(all.subarray(at, at + into.length))
    at += into.length
    return at <= all.length
  })
}

/** The suite for `settings`, lists of methods that work together; `known` are the methods that settings may name. */
export function conforms(settings: readonly (readonly AnyMethod[])[], known: readonly AnyMethod[]): void {
  describe.each(settings.map((methods) => ({ name: methods.map(({ name }) => name).join('+'), methods })))(
    '$name',
    ({ methods }) => {
      const Model = stackFor(methods)
      const layerOf = (setting: AttentionSetting, shape: TestShape, type: number) => new Model(setting, shape, type, known)
      // Several layers take several times as long, and pairs of a method by which layers share are many.
      const shapes = Model === TestStack && methods.length > 1 ? SHAPES.slice(1, 2) : SHAPES
      describe.each(shapes)('$nHead heads on $nHeadKv of $headDim', (shape) => {
        it.each([
          ['f32', F32, TOLERANCE.f32],
          ['f16', F16, 4 * TOLERANCE.f16],
        ] as const)('1: enough budget equals dense, over a %s cache', async (_, type, tolerance) => {
          using layer = layerOf(settingOf(methods, 'exactFor'), shape, type)
          const expected = dense(layer)
          using cache = layer.newCache(1024)
          const outputs = [...(await readPrompt(layer, cache, () => 512)), ...(await decode(layer, cache, PROMPT, T))]
          expect(relativeError(outputs, expected)).toBeLessThan(tolerance)
          using one = layer.newCache(1024)
          expect(relativeError(await decode(layer, one, 0, 80), expected.subarray(0, 80 * N_EMBD))).toBeLessThan(tolerance)
        })

        it('2: it does not matter in which chunks a prompt is read', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using whole = layer.newCache(1024)
          using pieces = layer.newCache(1024)
          const expected = [...(await readPrompt(layer, whole, () => 512)), ...(await decode(layer, whole, PROMPT, T))]
          const actual = [
            ...(await readPrompt(layer, pieces, (at) => (at < 128 ? 64 : 67))),
            ...(await decode(layer, pieces, PROMPT, T)),
          ]
          expect(relativeError(actual, expected)).toBeLessThan(TOLERANCE.f32)
        })

        it('3: neighbours do not matter', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using alone = layer.newCache(1024)
          using left = layer.newCache(1024)
          using right = layer.newCache(1024)
          await readPrompt(layer, alone, () => 128)
          await readPrompt(layer, left, () => 128)
          await readPrompt(layer, right, () => 128, 100)
          const [expected] = await layer.attend([{ cache: alone, x: tokens(PROMPT, PROMPT + 1) }])
          const [, actual] = await layer.attend([
            { cache: right, x: tokens(100, 101) },
            { cache: left, x: tokens(PROMPT, PROMPT + 1) },
          ])
          expect(relativeError(actual!, expected!)).toBeLessThan(1e-5)
        })

        it('4: no output sees a later token', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          const n = 200
          const changed = x.slice()
          changed.fill(1, (n - 10) * N_EMBD)
          using one = layer.newCache(1024)
          using other = layer.newCache(1024)
          const a = await readPrompt(layer, one, () => n, n)
          const b = await readPrompt(layer, other, () => n, n, changed)
          const before = (n - 10) * N_EMBD
          expect(relativeError(a.slice(0, before), b.slice(0, before))).toBeLessThan(1e-5)
          expect(a.slice(before)).not.toEqual(b.slice(before))
        })

        it.skipIf(process.platform !== 'linux')('5: it holds the bytes it declares, and gives them back', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          const cache = layer.newCache(4096)
          await readPrompt(layer, cache, () => 128)
          await decode(layer, cache, PROMPT, PROMPT + 3)
          // Whole pages may be fewer: what is read but never written takes none.
          expect(mappedResidentBytes(cache)).toBeLessThanOrEqual(cache.bytesHeld)
          expect(mappedResidentBytes(cache)).toBeGreaterThan(0.6 * cache.bytesHeld)
          cache[Symbol.dispose]()
          expect(cache.bytesHeld).toBe(0)
        })

        it('8: a fork and a restored copy go on exactly as the original', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using original = layer.newCache(1024)
          await readPrompt(layer, original, () => 128)
          await decode(layer, original, PROMPT, PROMPT + 6)
          using fork = original.fork()
          using copy = await restored(original)
          const expected = await decode(layer, original, PROMPT + 6, T - 9)
          expect(await decode(layer, fork, PROMPT + 6, T - 9)).toEqual(expected)
          expect(await decode(layer, copy, PROMPT + 6, T - 9)).toEqual(expected)
          for (const cache of [original, fork, copy]) cache.checkIntegrity()
          const cut = [original, fork, copy].map((cache) => layer.attention.truncate(cache, T - 20))
          expect(new Set(cut).size).toBe(1)
          const after = await decode(layer, original, original.nTokens, T)
          expect(await decode(layer, fork, fork.nTokens, T)).toEqual(after)
          expect(await decode(layer, copy, copy.nTokens, T)).toEqual(after)
        })

        it('9: graphs that are computed again give what new ones give', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using one = layer.newCache(1024)
          await readPrompt(layer, one, () => 128)
          using other = one.fork()
          const expected: number[] = []
          for (let at = PROMPT; at < T; at++) {
            layer.forgetPlan()
            expected.push(...(await decode(layer, one, at, at + 1)))
          }
          expect(await decode(layer, other, PROMPT, T)).toEqual(expected)
        })

        it('10: a step that failed has changed nothing', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using cache = layer.newCache(1024)
          using unharmed = layer.newCache(1024)
          for (let at = 0; at < T;) {
            const n = at < PROMPT ? Math.min(100, PROMPT - at, layer.attention.maxChunk(cache)) : 1
            const isEnd = at + n >= PROMPT
            await layer.computeOnly([{ cache, x: tokens(T - n, T) }])
            const part = { x: tokens(at, at + n) }
            const [actual] = await layer.attend([{ cache, ...part }], isEnd)
            const [expected] = await layer.attend([{ cache: unharmed, ...part }], isEnd)
            expect(actual).toEqual(expected)
            at += n
          }
        })

        it.runIf(methods.every(({ axis }) => axis === 'keep'))('7: positions survive eviction', async () => {
          using layer = layerOf(settingOf(methods, 'tightFor'), shape, F32)
          using cache = layer.newCache(1024)
          await readPrompt(layer, cache, () => 128)
          await decode(layer, cache, PROMPT, T - 1)
          const [method] = methods
          const keep = method!.axis === 'keep' ? method!.bind(method!.options.parse(optionsFor(method!).tightFor(T)), layer.modelShape) : null
          const held = cache.layers[0]!.rows.map((map) => [
            ...Array.from({ length: map.nRows }, (_, rank) => map.position(map.row(rank))),
            T - 1,
          ])
          expect(held[0]!.length).toBeLessThan(T)
          const oracle = layer.oracle(x)
          const place = (list: number[], i: number) => (keep!.positions === 'cache' ? i : list[i]!)
          const expected = oracle.layer((t, h) => {
            if (t < T - 1) return new Float64Array(shape.headDim)
            const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
            const list = held[kv]!
            const keys = list.map((position, i) => oracle.rotate(oracle.k[position]![kv]!, place(list, i)))
            const p = oracle.probabilities(oracle.rotate(oracle.q[t]![h]!, place(list, list.length - 1)), keys)
            return oracle.weigh(
              p,
              list.map((position) => oracle.v[position]![kv]!),
            )
          })
          const [actual] = await layer.attend([{ cache, x: tokens(T - 1, T) }])
          expect(relativeError(actual!, expected.subarray((T - 1) * N_EMBD))).toBeLessThan(TOLERANCE.f32)
        })
      })
    },
  )
}

/** `methods` alone, and in pairs of different axes that work together; but not those that need a model of their own. */
export function settingsOf(methods: readonly AnyMethod[]): AnyMethod[][] {
  const usual = methods.filter(({ needs }) => needs === undefined)
  const agree = (a: AnyMethod, b: AnyMethod) => a.axis !== b.axis && conflictOf(a, b) === undefined
  return [
    ...usual.map((method) => [method]),
    ...usual.flatMap((a, i) => usual.slice(i + 1).flatMap((b) => (agree(a, b) ? [[a, b]] : []))),
  ]
}
