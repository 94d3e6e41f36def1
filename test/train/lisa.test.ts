import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { lisaName, lisaShapes, lisaTensors } from '../../src/attention/share/lisa/adapter-file.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32 } from '../../src/ggml/types.ts'
import { batchInputs } from '../../src/train/batch.ts'
import {
  type LisaFiles,
  lisaLogits,
  lisaObjectives,
  lisaParts,
  saveLisa,
  trainLisa,
  writeLisaStart,
} from '../../src/train/lisa.ts'
import { type LisaPlan, lisaPlan, lisaStart, periodsOf, rowsOf } from '../../src/train/lisa-start.ts'
import { Parameters, readFloats } from '../../src/train/parameters.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { synthesize } from '../../src/weights/synth.ts'
import { BUNDLED_GGUF, HELDOUT, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { backward, gradientError } from '../support/gradients.ts'
import { normals } from '../support/random.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { withRunner } from '../support/runner.ts'
import { TINY, tinyLlama, tinyShape } from '../support/tiny-llama.ts'

const backend = new Backend(1)
const folder = new TemporaryFolder()
beforeAll(() => writeFileSync(folder.file('text.txt'), readFileSync(HELDOUT, 'utf8').slice(0, 20_000)))
afterAll(() => {
  backend[Symbol.dispose]()
  folder[Symbol.dispose]()
})

const N = 24
const tokens = heldoutTokens(N)

/** Logits f32[nVocab, 24] of the bundled model. */
async function engineLogits(setting: string, cut = N): Promise<Float32Array> {
  return await withRunner(BUNDLED_GGUF, { cacheType: F32 }, async (runner) => {
    using sequence = runner.newSequence(N, setting)
    const rows: number[] = []
    for (let at = 0; at < N; at += cut) {
      const [logits] = await runner.run([{ sequence, tokens: tokens.subarray(at, at + cut), logits: 'all' }])
      rows.push(...logits!)
    }
    return Float32Array.from(rows)
  })
}

/** The training forward's, with the layers replaced. */
async function trainingLogits(plan: LisaPlan, change: (parameters: Parameters) => void, path: string): Promise<Float32Array> {
  using base = openGguf(BUNDLED_GGUF)
  using parameters = new Parameters(backend)
  const model = lisaParts(base, parameters, { plan })
  change(parameters)
  await saveLisa(base, { path, plan, values: (name) => parameters.get(name)!.data })
  using scratch = new Scratch(backend.bufferType)
  using g = new Graph(4000)
  const { nVocab } = model.hp.shape
  const batch = batchInputs(g, { nTokens: N, nSequences: 1, nVocab }, () => [Int32Array.of(...tokens, 0)])
  const logits = g.output(lisaLogits(g, model, batch).ours)
  g.plan(scratch)
  g.fillInputs()
  await backend.compute(g, true)
  return g.read(logits, new Float32Array(N * nVocab))
}

const planOf = (layers: string, more: { rank?: number; hidden?: number } = {}): LisaPlan => {
  using base = openGguf(BUNDLED_GGUF)
  return lisaPlan(base, { layers, ...more })
}

/** Adds noise to all that is learnt. */
function shake(parameters: Parameters): void {
  for (const [i, { name, data }] of parameters.trained().entries()) {
    const scale = name.includes('lisa_q') || name.includes('lisa_k') ? 0.05 : 0.2
    for (const [j, x] of normals(data.length, i + 1).entries()) data[j]! += scale * x
  }
}

describe('an adapter of the bundled model', () => {
  test.each([
    ['2-4', {}],
    ['1/3-5', { rank: 8, hidden: 3 }],
    ['4', { hidden: 0 }],
  ])('what is trained is what runs: layers %s', async (layers, more) => {
    const path = folder.file('shaken.gguf')
    const expected = await trainingLogits(planOf(layers, more), shake, path)
    for (const cut of [N, 7, 1])
      expect(relativeError(await engineLogits(`lisa:adapter=${path}`, cut), expected)).toBeLessThan(TOLERANCE.f16)
    expect(relativeError(await engineLogits('dense'), expected)).toBeGreaterThan(0.1)
  })
})

describe('before it has learnt', () => {
  test('it is shared attention over the same layers', async () => {
    const path = folder.file('start.gguf')
    await writeLisaStart({ model: BUNDLED_GGUF, out: path, layers: '3-5' })
    const [start, shared] = [await engineLogits(`lisa:adapter=${path}`), await engineLogits('sa:layers=3-5')]
    expect(relativeError(start, shared)).toBeLessThan(1e-5)
  })

  test('its keys are whole rotary pairs of the layer’s, with their periods: of full rank they are the layer’s', () => {
    using base = openGguf(BUNDLED_GGUF)
    const wk = readFloats(base, base.tensors.get('blk.3.attn_k.weight')!)
    const shape = { nEmbd: 256, nHead: 8, nHeadKv: 8, headDim: 32 }
    const whole = lisaStart(base, 3, lisaPlan(base, { layers: '3', rank: 32 }))
    expect(whole.k).toEqual(wk)
    const some = lisaStart(base, 3, lisaPlan(base, { layers: '3', rank: 4 }))
    const pairs = [...some.period].map((period) => periodsOf(base).map(Math.fround).indexOf(period))
    expect(some.k).toEqual(rowsOf(wk, pairs, shape))
    const [first] = pairs
    expect(some.k.subarray(0, 512)).toEqual(wk.subarray(first! * 512, (first! + 1) * 512))
    expect(some.k.subarray(4 * 256, 4 * 256 + 512)).toEqual(wk.subarray((32 + 2 * first!) * 256, (34 + 2 * first!) * 256))
  })

  test('of a sixth of a head at most by default, over the second half of the layers, also for quantised models', async () => {
    const model = folder.file('synth.gguf')
    await synthesize({ like: 'tinyllama-1.1b', type: 'q4_0', out: model, layers: 2, vocab: 4096, tokenizerFrom: BUNDLED_GGUF })
    const path = folder.file('synth-lisa.gguf')
    await writeLisaStart({ model, out: path, layers: 'auto' })
    using made = openGguf(path)
    expect(made.metadata('lisa.layers')).toEqual([1])
    expect(made.metadata('lisa.rank')).toBe(8)
    expect(made.tensors.get('blk.1.lisa_k.weight')!.ne.slice(0, 2)).toEqual([2048, 4 * 8])
  })

  test.each([
    ['0-2', {}, 'layer 0 has none before it'],
    ['4-6', {}, 'it has no layer 6'],
    ['none', {}, "'none' are no layers"],
    ['5-3', {}, 'there are none'],
    ['3..5', {}, "'3..5' are no layers"],
    ['3', { rank: 5 }, 'the rank must be even'],
    ['3', { rank: 34 }, 'from 2 to the 32 elements'],
  ])('layers %s %j are refused', (layers, more, reason) => {
    expect(() => planOf(layers, more)).toThrow(reason)
  })
})

const WINDOWS = [Int32Array.of(1, 5, 2, 5, 9, 0), Int32Array.of(7, 7, 3, 10, 4, 8)]
const SHAPE = { nTokens: 5, nSequences: 2, nVocab: TINY.shape.nVocab }

describe('gradients are those of differences', () => {
  const model = tinyLlama(backend, { ...TINY, shape: tinyShape({ nLayer: 4 }) })
  const parameters = new Parameters(backend)
  const plan: LisaPlan = { layers: [1, 3], rank: 4, hidden: 3, seed: 0 }
  const shapes = lisaShapes(model.hp.shape, plan)
  for (const il of plan.layers) {
    for (const [i, tensor] of lisaTensors(plan).entries()) {
      const p = parameters.add(lisaName(il, tensor), shapes[tensor], tensor !== 'period')
      p.data.set(normals(p.data.length, 10 * il + i).map((y) => (tensor === 'period' ? Math.abs(y) + 1 : 0.4 * y)))
    }
  }
  const lisa = { hp: model.hp, weights: model.constants, plan, parameters }
  afterAll(() => {
    model[Symbol.dispose]()
    parameters[Symbol.dispose]()
  })

  test.each([
    ['first', { step: 0.02, most: 2e-3 }],
    ['last', { step: 0.08, most: 6e-3 }],
  ] as const)('the %s objective', async (which, { step, most }) => {
    const objective = lisaObjectives(lisa)[which]
    const record = (g: Graph) =>
      objective.loss(
        g,
        batchInputs(g, SHAPE, () => WINDOWS),
      )
    // The divergence of a whole model is a small difference of large numbers: shorter steps would be of its rounding.
    const { error, worst } = await gradientError(backend, parameters.trained(), { record, nElements: 12, step })
    expect(error, worst).toBeLessThan(most)
    expect(await backward(backend, parameters.all(), record)).toBeGreaterThan(0)
    expect(model.parameters.trained().every(({ trained }) => trained!.gradient.data.every((y) => y === 0))).toBe(true)
  })
})

describe('training', () => {
  const options = (more: Partial<LisaFiles> = {}): LisaFiles => ({
    ...{ model: BUNDLED_GGUF, file: folder.file('text.txt'), out: folder.file('adapter.gguf'), nThreads: 1 },
    ...{ layers: '3-5', firstSteps: 20, steps: 8, nTokens: 64, nSequences: 2, rate: 5e-3, warmup: 2, weightDecay: 0 },
    ...{ heldOut: 0.1, measureBatches: 4, measureEvery: 100 },
    ...more,
  })

  test('halves the divergence from the base; stopped in either part it goes on as if it had not been', async () => {
    const report = await trainLisa(options())
    const first = JSON.parse(readFileSync(`${options().out}.first.curve.json`, 'utf8')) as {
      points: { heldOut: number | null }[]
    }
    const [before, after] = [first.points[0]!.heldOut!, report.curve.at(-1)!.heldOut!]
    expect(before).toBeGreaterThan(0.2)
    expect(after).toBeLessThan(before / 2)
    expect(existsSync(`${options().out}.checkpoint`)).toBe(false)

    const out = folder.file('stopped.gguf')
    for (const nStops of [1, 2, 3]) {
      let n = 0
      const controller = new AbortController()
      const stopped = await trainLisa(
        options({ out, signal: controller.signal, onProgress: () => ++n === 5 && controller.abort() }),
      )
      expect(stopped.isStopped, `stop ${nStops}`).toBe(true)
      expect(existsSync(out)).toBe(false)
    }
    await trainLisa(options({ out }))
    expect(readFileSync(out).equals(readFileSync(options().out))).toBe(true)
    expect(existsSync(`${out}.first.checkpoint`)).toBe(false)
  })

  test('what it wrote runs, and is refused by another model', async () => {
    const learnt = await engineLogits(`lisa:adapter=${options().out}`)
    const [shared, dense] = [await engineLogits('sa:layers=3-5'), await engineLogits('dense')]
    expect(relativeError(learnt, dense)).toBeLessThan(relativeError(shared, dense))
    await withRunner(folder.file('synth.gguf'), {}, async (runner) => {
      expect(() => runner.attention(`lisa:adapter=${options().out}`)).toThrow(/was made for another model/)
    })
  })
})
