/**
 * What every method, and every pair that may work together, holds to (design: ten properties). Most of them compare with one
 * course of a sequence, which is computed once for a setting and a shape.
 */
import { afterAll, describe, expect, it } from 'vitest'
import { conflictOf } from '../../src/attention/catalogue.ts'
import type { AnyMethod } from '../../src/attention/method.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { TestLayer } from './attention-layer.ts'
import { N_LAYER, TestStack } from './attention-stack.ts'
import { relativeError, TOLERANCE } from './close.ts'
import { courseOf, decode, EARLY, LATE, oddPieces, ofTokens, PROMPT, readPrompt, restored, T, tokens, x } from './course.ts'
import { modelOf, N_EMBD, type TestShape } from './layer-shape.ts'
import { type MethodOptions, OPTIONS, optionsFor } from './method-options.ts'

export const SHAPES: readonly TestShape[] = [
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
  { nHead: 3, nHeadKv: 1, headDim: 80 },
  { nHead: 2, nHeadKv: 2, headDim: 128, sinks: true, differs: () => ({ dV: 96, softcap: 1, scale: 0.5 }) },
  {
    nHead: 4,
    nHeadKv: 2,
    headDim: 64,
    sinks: true,
    differs: (il) => ({ visible: il % 2 ? 'causal' : { window: 90 }, softcap: 1 }),
  },
]

export const settingOf = (methods: readonly AnyMethod[], kind: keyof MethodOptions, options = OPTIONS): AttentionSetting =>
  methods.map((method) => ({ method: method.name, ...optionsFor(method, options)[kind](T) }))

/** The model that a setting is tested with: methods by which layers share need several. */
const stackFor = (methods: readonly AnyMethod[]) => (methods.some(({ axis }) => axis === 'share') ? TestStack : TestLayer)
export const nLayersFor = (methods: readonly AnyMethod[]): number => (stackFor(methods) === TestStack ? N_LAYER : 1)

/** Dense attention by plain loops takes longer than what is compared with it. */
const denseOf = new Map<string, Float64Array>()

function dense(layer: TestLayer): Float64Array {
  const key = JSON.stringify([layer.modelShape.layers, layer.shape.sinks])
  const known = denseOf.get(key) ?? layer.oracle(x).dense()
  denseOf.set(key, known)
  return known
}

/** What `make` gives, made when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined
  return () => (made ??= { value: make() }).value
}

/** The suite for `settings`, lists of methods that work together; `known` are the methods that settings may name. */
export function conforms(
  settings: readonly (readonly AnyMethod[])[],
  known: readonly AnyMethod[],
  options: Readonly<Record<string, MethodOptions>> = OPTIONS,
): void {
  const parsed = (method: AnyMethod) => method.options.parse(optionsFor(method, options).tightFor(T))
  const serves = (methods: readonly AnyMethod[], shape: TestShape) =>
    methods.every((method) => !method.refuses?.(modelOf(shape, nLayersFor(methods)), parsed(method)))
  const named = settings.map((methods) => ({ name: methods.map(({ name }) => name).join('+'), methods }))
  describe.each(named)('$name', ({ methods }) => {
    const Model = stackFor(methods)
    // Several layers take several times as long, and pairs of a method by which layers share are many.
    const shapes = Model === TestStack && methods.length > 1 ? SHAPES.slice(1, 2) : SHAPES
    describe.each(shapes.filter((shape) => serves(methods, shape)))('$nHead heads on $nHeadKv of $headDim', (shape) => {
      const layerOf = (kind: keyof MethodOptions, type: number) =>
        new Model(settingOf(methods, kind, options), shape, type, known)
      const disposables: Disposable[] = []
      const later = <D extends Disposable>(made: D): D => (disposables.push(made), made)
      afterAll(() => disposables.reverse().forEach((made) => made[Symbol.dispose]()))
      const tight = once(() => later(layerOf('tightFor', F32)))
      const course = once(async () => later(await courseOf(tight())))
      const atOnce = once(async () => {
        using cache = tight().newCache(1024)
        return [...(await readPrompt(tight(), cache, () => 512)), ...(await decode(tight(), cache, PROMPT, T))]
      })

      it.each([
        ['f32', F32, TOLERANCE.f32],
        ['f16', F16, 4 * TOLERANCE.f16],
      ] as const)('1: enough budget equals dense, over a %s cache', async (_, type, tolerance) => {
        using layer = layerOf('exactFor', type)
        const expected = dense(layer)
        using cache = layer.newCache(1024)
        const outputs = [...(await readPrompt(layer, cache, () => 512)), ...(await decode(layer, cache, PROMPT, T))]
        expect(relativeError(outputs, expected)).toBeLessThan(tolerance)
        using one = layer.newCache(1024)
        expect(relativeError(await decode(layer, one, 0, 80), expected.subarray(0, 80 * N_EMBD))).toBeLessThan(tolerance)
      })

      it('2: it does not matter in which chunks a prompt is read', async () => {
        expect(relativeError(await atOnce(), (await course()).outputs)).toBeLessThan(TOLERANCE.f32)
      })

      it('3: neighbours do not matter', async () => {
        const { afterPrompt, outputs } = await course()
        using left = afterPrompt.fork()
        using right = tight().newCache(1024)
        await readPrompt(tight(), right, () => 128, tokens(0, 100))
        const [, actual] = await tight().attend([
          { cache: right, x: tokens(100, 101) },
          { cache: left, x: tokens(PROMPT, PROMPT + 1) },
        ])
        expect(relativeError(actual!, ofTokens(outputs, PROMPT, PROMPT + 1))).toBeLessThan(1e-5)
      })

      it('4: no output sees a later token', async () => {
        const outputs = ofTokens(await atOnce(), 0, PROMPT)
        const changed = tokens(0, PROMPT).slice()
        changed.fill(1, (PROMPT - 10) * N_EMBD)
        using other = tight().newCache(1024)
        const others = await readPrompt(tight(), other, () => 512, changed)
        const before = (all: number[]) => ofTokens(all, 0, PROMPT - 10)
        expect(relativeError(before(others), before(outputs))).toBeLessThan(1e-5)
        expect(others.slice(before(others).length)).not.toEqual(outputs.slice(before(outputs).length))
      })

      it.skipIf(process.platform !== 'linux')('5: it holds the bytes it declares, and gives them back', async () => {
        const { resident, declared, afterPrompt } = await course()
        // Whole pages may be fewer: what is read but never written takes none.
        expect(resident).toBeLessThanOrEqual(declared)
        expect(resident).toBeGreaterThan(0.6 * declared)
        const cache = afterPrompt.fork()
        expect(cache.bytesHeld).toBeGreaterThan(0)
        cache[Symbol.dispose]()
        expect(cache.bytesHeld).toBe(0)
      })

      it.runIf(methods.every(({ axis }) => axis === 'keep'))('7: positions survive eviction', async () => {
        const { held, outputs } = await course()
        const keeps = methods.flatMap((one) => (one.axis === 'keep' ? [one.bind(parsed(one), tight().modelShape)] : []))
        const place = (list: readonly number[], i: number) => (keeps[0]!.positions === 'cache' ? i : list[i]!)
        expect(held[0]!.length).toBeLessThan(T - 1)
        const oracle = tight().oracle(x)
        const expected = oracle.token((h) => {
          const kv = Math.floor(h / (shape.nHead / shape.nHeadKv))
          const list = [...held[kv]!, T - 1]
          const [first] = oracle.sees(T - 1)
          const seen = [...list.entries()].filter(([, position]) => position >= first)
          const keys = seen.map(([i, position]) => oracle.rotate(oracle.k[position]![kv]!, place(list, i)))
          const p = oracle.probabilities(oracle.rotate(oracle.q[T - 1]![h]!, place(list, list.length - 1)), keys, h)
          return oracle.weigh(
            p,
            seen.map(([, position]) => oracle.v[position]![kv]!),
          )
        })
        expect(relativeError(ofTokens(outputs, T - 1, T), expected)).toBeLessThan(TOLERANCE.f32)
      })

      it('8: a fork and a restored copy go on exactly as the original', async () => {
        const { early, bytes, original, outputs } = await course()
        using fork = early.fork()
        using copy = await restored(early, bytes)
        const caches = [original, fork, copy]
        const expected = ofTokens(outputs, EARLY, LATE)
        for (const cache of [fork, copy]) expect(await decode(tight(), cache, EARLY, LATE)).toEqual(expected)
        for (const cache of caches) cache.checkIntegrity()
        const [cut, ...others] = caches.map((cache) => tight().attention.truncate(cache, T - 20))
        expect(others).toEqual([cut, cut])
        const after = cut ? await decode(tight(), original, T - 20, T) : ofTokens(outputs, LATE, T)
        for (const cache of cut ? [fork, copy] : caches) expect(await decode(tight(), cache, cache.nTokens, T)).toEqual(after)
      })

      it('9: graphs that are computed again give what new ones give', async () => {
        const { afterPrompt, outputs } = await course()
        using cache = afterPrompt.fork()
        for (let at = PROMPT; at < T; at++) {
          tight().forgetPlan()
          expect(await decode(tight(), cache, at, at + 1)).toEqual(ofTokens(outputs, at, at + 1))
        }
      })

      it('10: a step that failed has changed nothing', async () => {
        const { outputs } = await course()
        using cache = tight().newCache(1024)
        for (let at = 0; at < T;) {
          const n = at < PROMPT ? Math.min(oddPieces(at), PROMPT - at, tight().attention.maxChunk(cache)) : 1
          await tight().computeOnly([{ cache, x: tokens(T - n, T) }])
          const [actual] = await tight().attend([{ cache, x: tokens(at, at + n) }], at + n >= PROMPT)
          expect([...actual!]).toEqual(ofTokens(outputs, at, at + n))
          at += n
        }
      })
    })
  })
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
