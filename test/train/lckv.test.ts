import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LayerSharing } from '../../src/core/layer-types.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32 } from '../../src/ggml/types.ts'
import { llama } from '../../src/models/llama.ts'
import { gradientNorm } from '../../src/train/adamw.ts'
import { batchInputs } from '../../src/train/batch.ts'
import { lckvObjective, type LckvFiles, trainLckv } from '../../src/train/lckv.ts'
import { forwardLlama, trainableLlama } from '../../src/train/trainable-llama.ts'
import { Parameters } from '../../src/train/parameters.ts'
import { forwardLckv } from '../../src/train/shared-layers.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF, HELDOUT, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { backward, gradientError } from '../support/gradients.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { runnerLogits } from '../support/runner.ts'
import { TINY, tinyLlama, tinyShape } from '../support/tiny-llama.ts'

const backend = new Backend(1)
const folder = new TemporaryFolder()
afterAll(() => {
  backend[Symbol.dispose]()
  folder[Symbol.dispose]()
})

const WINDOWS = [Int32Array.of(1, 5, 2, 5, 9, 0), Int32Array.of(7, 7, 3, 10, 4, 8)]
const SHAPE = { nTokens: 5, nSequences: 2, nVocab: TINY.shape.nVocab }

const tiny = (reads: readonly number[], more: Partial<LayerSharing> = {}) => {
  const sharing: LayerSharing = { reads, forceNodiag: false, forwardPasses: 1, backwardPasses: 2, ...more }
  return { ...TINY, shape: tinyShape({ nLayer: reads.length, sharing }) }
}

describe('the objective, small', () => {
  test.each([
    ['a sandwich, m = 1, b = 2', [0, 2, 2, 3], {}],
    ['the same, no token seeing itself in any layer', [0, 2, 2, 3], { forceNodiag: true }],
    ['one group alone, b = 3', [1, 1], { backwardPasses: 3 }],
    ['layers that read one below', [0, 0, 2, 2], {}],
  ] as const)('gradients are those of differences, the passes without gradients standing still: %s', async (_, reads, more) => {
    const hp = tiny(reads, more)
    using model = tinyLlama(backend, hp)
    using still = tinyLlama(backend, hp)
    const { error, worst } = await gradientError(backend, model.parameters.all(), {
      record: (g) => {
        const batch = batchInputs(g, SHAPE, () => WINDOWS)
        return g.crossEntropyLoss(forwardLckv(g, { ...model, constants: still.weights }, batch), batch.targets)
      },
      nElements: 4,
    })
    expect(error, worst).toBeLessThan(2e-3)
  })

  test('the passes without gradients read the parameters as they are', async () => {
    const hp = tiny([0, 2, 2, 3])
    using model = tinyLlama(backend, hp)
    using still = tinyLlama(backend, hp)
    const loss = (constants: typeof model.constants) =>
      backward(backend, model.parameters.all(), (g) => {
        const batch = batchInputs(g, SHAPE, () => WINDOWS)
        return g.crossEntropyLoss(forwardLckv(g, { ...model, constants }, batch), batch.targets)
      })
    expect(await loss(model.constants)).toBe(await loss(still.weights))
    model.parameters.get('blk.2.attn_v.weight')!.data.fill(0.1)
    expect(await loss(model.constants)).not.toBe(await loss(still.weights))
  })

  test('where each layer reads itself it is the ordinary model', async () => {
    using model = tinyLlama(backend, tiny([0, 1]))
    using scratch = new Scratch(backend.bufferType)
    using g = new Graph(1000)
    const batch = batchInputs(g, SHAPE, () => WINDOWS)
    const [shared, ordinary] = [g.output(forwardLckv(g, model, batch)), g.output(forwardLlama(g, model, { batch }))]
    g.plan(scratch)
    g.fillInputs()
    await backend.compute(g, true)
    const read = (t: typeof shared) => g.read(t, new Float32Array(10 * SHAPE.nVocab))
    expect(read(shared)).toEqual(read(ordinary))
  })
})

const options = (more: Partial<LckvFiles> = {}): LckvFiles => ({
  ...{ model: BUNDLED_GGUF, file: folder.file('text.txt'), out: folder.file('m.gguf'), nThreads: 1 },
  ...{ layers: '0_4x4_5', forceNodiag: false, forwardPasses: 2, backwardPasses: 1, start: 'mean', distil: 0 },
  ...{ nTokens: 64, nSequences: 2, steps: 8, warmup: 2, rate: 1e-4, heldOut: 0.1, measureBatches: 4 },
  ...more,
})
beforeAll(() => writeFileSync(folder.file('text.txt'), readFileSync(HELDOUT, 'utf8').slice(0, 20_000)))

describe('a model of the bundled one', () => {
  let learnt: number[] = []

  test('the loss falls; only layers that are read have projections; the file says how they share', async () => {
    const report = await trainLckv(options())
    expect(report.isStopped).toBe(false)
    learnt = report.curve.flatMap((point) => point.heldOut ?? [])
    expect(learnt.at(-1)!).toBeLessThan(learnt[0]! - 0.05)
    using base = openGguf(BUNDLED_GGUF)
    using made = openGguf(folder.file('m.gguf'))
    const gone = [1, 2, 3].flatMap((il) => [`blk.${il}.attn_k.weight`, `blk.${il}.attn_v.weight`])
    expect([...made.tensors.keys()].toSorted()).toEqual(
      [...base.tensors.keys()].filter((name) => !gone.includes(name)).toSorted(),
    )
    expect(llama.hyperparameters(made).shape.sharing).toEqual({
      reads: [0, 4, 4, 4, 4, 5],
      forceNodiag: false,
      forwardPasses: 2,
      backwardPasses: 1,
    })
  })

  test.each([
    ['as trained', false],
    ['force_nodiag', true],
  ])('what is trained is what runs: the logits are those of the engine with as many passes, %s', async (_, forceNodiag) => {
    const out = folder.file(`nodiag-${forceNodiag}.gguf`)
    await trainLckv(options({ out, forceNodiag, steps: 0 }))
    using base = openGguf(out)
    using parameters = new Parameters(backend)
    const model = trainableLlama(base, parameters, () => true)
    const { nVocab, sharing } = model.hp.shape
    const tokens = heldoutTokens(24)
    const logits = async (passes: number) => {
      using scratch = new Scratch(backend.bufferType)
      using g = new Graph(4000)
      const batch = batchInputs(g, { nTokens: 24, nSequences: 1, nVocab }, () => [Int32Array.of(...tokens, 0)])
      const shape = { ...model.hp.shape, sharing: { ...sharing!, forwardPasses: passes - 1, backwardPasses: 1 } }
      const found = g.output(forwardLckv(g, { ...model, hp: { ...model.hp, shape } }, batch))
      g.plan(scratch)
      g.fillInputs()
      await backend.compute(g, true)
      return g.read(found, new Float32Array(24 * nVocab))
    }
    const [expected] = [await runnerLogits(out, tokens, { cacheType: F32 })]
    const all = Float32Array.from(expected.flatMap((row) => [...row]))
    const [three, four] = [await logits(3), await logits(4)]
    expect(relativeError(three, all)).toBeLessThan(2 * TOLERANCE.f16)
    expect(relativeError(four, all)).toBeGreaterThan(10 * TOLERANCE.f16)
  })

  test('stopped and begun again, it writes the same file', async () => {
    const out = folder.file('again.gguf')
    const controller = new AbortController()
    const onProgress = ({ step }: { step: number }) => {
      if (step === 3) controller.abort()
    }
    expect(await trainLckv(options({ out, onProgress, signal: controller.signal }))).toMatchObject({ isStopped: true, step: 3 })
    await expect(trainLckv(options({ out, forwardPasses: 3 }))).rejects.toMatchObject({ code: 'checkpoint_mismatch' })
    await trainLckv(options({ out }))
    expect(readFileSync(out).equals(readFileSync(folder.file('m.gguf')))).toBe(true)
  })

  test('a model that shares goes on as it is, and not in another way', async () => {
    const model = folder.file('m.gguf')
    const out = folder.file('on.gguf')
    const { layers: _, forwardPasses: __, ...rest } = options({ model, out, steps: 1, backwardPasses: 2 })
    const { curve } = await trainLckv(rest)
    expect(curve[0]!.heldOut!).toBeCloseTo(learnt.at(-1)!, 1) // one more pass, and weights rounded to f16
    using made = openGguf(out)
    expect(llama.hyperparameters(made).shape.sharing).toMatchObject({
      ...{ reads: [0, 4, 4, 4, 4, 5], forceNodiag: false, forwardPasses: 2, backwardPasses: 2 },
    })
    await expect(trainLckv({ ...rest, layers: '0_3x3_4_5' })).rejects.toMatchObject({ code: 'layers_unusable' })
    await expect(trainLckv({ ...rest, distil: 1 })).rejects.toThrow(/m.gguf' cannot teach: its layers share/)
    const taught = await trainLckv({ ...rest, distil: 1, teacher: BUNDLED_GGUF })
    expect(taught.curve[0]!.heldOut).toBe(curve[0]!.heldOut)
    expect(taught.curve.at(-1)!.loss).not.toBe(curve.at(-1)!.loss)
  })

  test.each<[string, Partial<LckvFiles>]>([
    ['no layers', { layers: undefined }],
    ['layers of another model', { layers: '0_20x20_21' }],
    ['layers that read themselves', { layers: '0_1_2_3_4_5' }],
    ['two groups', { layers: '1_1_3_3_5_5' }],
    ['a window that slides', { layers: '0_4sx4_5' }],
  ])('refused, with nothing written: %s', async (_, wrong) => {
    const before = readdirSync(folder.file(''))
    const run = trainLckv(options({ ...wrong, out: folder.file('refused.gguf') }))
    await expect(run).rejects.toMatchObject({ code: 'layers_unusable' })
    expect(readdirSync(folder.file(''))).toEqual(before)
  })
})

describe('how it begins and what it aims at', () => {
  const sharing = tiny([0, 4, 4, 4, 4, 5]).shape.sharing!

  test('the projections of the target are the means over those that read it, or its own', () => {
    using base = openGguf(BUNDLED_GGUF)
    using ordinary = new Parameters(backend)
    trainableLlama(base, ordinary, () => false)
    for (const start of ['mean', 'copy'] as const) {
      using parameters = new Parameters(backend)
      lckvObjective(base, parameters, { sharing, start, distil: 0 })
      for (const at of ['attn_k.weight', 'attn_v.weight']) {
        const readers = (start === 'mean' ? [1, 2, 3, 4] : [4]).map((il) => ordinary.get(`blk.${il}.${at}`)!.data)
        const expected = Float32Array.from(readers[0]!, (_, i) => readers.reduce((sum, x) => sum + x[i]!, 0) / readers.length)
        expect(relativeError(parameters.get(`blk.4.${at}`)!.data, expected)).toBeLessThan(1e-6)
        expect(parameters.get(`blk.2.${at}`)).toBeUndefined()
        expect(parameters.get(`blk.0.${at}`)!.data).toEqual(ordinary.get(`blk.0.${at}`)!.data)
      }
    }
  })

  test('whatever the targets, it is measured by the text', async () => {
    using base = openGguf(BUNDLED_GGUF)
    const loss = async (distil: number, by: 'loss' | 'measured') => {
      using parameters = new Parameters(backend)
      const objective = lckvObjective(base, parameters, { sharing, start: 'mean', distil })
      return await backward(backend, parameters.trained(), (g) =>
        objective[by]!(
          g,
          batchInputs(g, { nTokens: 8, nSequences: 1, nVocab: objective.nVocab }, () => [heldoutTokens(9)]),
        ),
      )
    }
    const text = await loss(0, 'loss')
    expect(await loss(0.5, 'measured')).toBe(text)
    expect(await loss(0.5, 'loss')).not.toBeCloseTo(text, 2)
    // Cross-entropy is linear in the targets.
    expect(await loss(0.5, 'loss')).toBeCloseTo((text + (await loss(1, 'loss'))) / 2, 4)
  })

  test("the base's own predictions as targets: the base is already there, and another model is not", async () => {
    using base = openGguf(BUNDLED_GGUF)
    const norms = async (reads: readonly number[], distil: number) => {
      using parameters = new Parameters(backend)
      const objective = lckvObjective(base, parameters, { sharing: { ...sharing, reads }, start: 'mean', distil })
      await backward(backend, parameters.trained(), (g) => {
        const windows = [heldoutTokens(9)]
        return objective.loss(
          g,
          batchInputs(g, { nTokens: 8, nSequences: 1, nVocab: objective.nVocab }, () => windows),
        )
      })
      return gradientNorm(parameters.trained())
    }
    const itself = await norms([0, 1, 2, 3, 4, 5], 1)
    expect(itself).toBeLessThan(1e-4 * (await norms([0, 1, 2, 3, 4, 5], 0)))
    expect(itself).toBeLessThan(1e-4 * (await norms([0, 4, 4, 4, 4, 5], 1)))
  })
})
