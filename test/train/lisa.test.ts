import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { lisaShapes, type LisaTensor, lisaTensors } from '../../src/attention/lisa-adapter.ts'
import { KvasirError } from '../../src/core/errors.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { F32 } from '../../src/ggml/types.ts'
import { llama } from '../../src/models/llama.ts'
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
import { forwardLlama } from '../../src/train/llama.ts'
import { Parameters, readFloats } from '../../src/train/parameters.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { synthesize } from '../../src/weights/synth.ts'
import { BUNDLED_GGUF, HELDOUT, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { gradientError } from '../support/gradients.ts'
import { normals } from '../support/random.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { withRunner } from '../support/runner.ts'
import { TINY, tinyLlama } from '../support/tiny-llama.ts'

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
