import { afterAll, expect, test } from 'vitest'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32 } from '../../src/ggml/types.ts'
import { denseTraining } from '../../src/train/trainable-attention.ts'
import { batchInputs } from '../../src/train/batch.ts'
import { forwardLlama, runLayer, trainableLlama } from '../../src/train/trainable-llama.ts'
import { Parameters } from '../../src/train/parameters.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { gradientError, weighted } from '../support/gradients.ts'
import { normals } from '../support/random.ts'
import { referenceLogits } from '../support/reference.ts'
import { TINY, tinyLlama, tinyShape } from '../support/tiny-llama.ts'

const backend = new Backend(1)
afterAll(() => backend[Symbol.dispose]())

const WINDOWS = [Int32Array.of(1, 5, 2, 5, 9, 0), Int32Array.of(7, 7, 3, 10, 4, 8)]
const SHAPE = { nTokens: 5, nSequences: 2, nVocab: TINY.shape.nVocab }

test('the gradients of a whole layer are those of differences: norms, rope, heads that share KV, causal mask, gated MLP', async () => {
  using model = tinyLlama(backend)
  const x = model.parameters.add('x', [TINY.shape.nEmbd, 10])
  x.data.set(normals(x.data.length, 17))
  const parameters = model.parameters.all().filter(({ name }) => name.startsWith('blk.0') || name === 'x')
  const { error, worst } = await gradientError(backend, parameters, {
    record: (g) => {
      const batch = batchInputs(g, SHAPE, () => WINDOWS)
      const attend = denseTraining(g, batch)
      return weighted(g, runLayer(g, model.weights.layers[0]!, { x: x.tensor, attend }))
    },
  })
  expect(parameters).toHaveLength(10)
  expect(error, worst).toBeLessThan(2e-3)
})

test.each([
  ['two layers', TINY],
  ['two layers and tied embeddings', { ...TINY, tiedOutput: true }],
  ['rotation of halves, one KV head', { ...TINY, shape: tinyShape({ nHeadKv: 1 }), rope: { ...TINY.rope, mode: 2 } }],
] as const)('the gradients of a model with cross-entropy are those of differences: %s', async (_, hp) => {
  using model = tinyLlama(backend, hp)
  const { error, worst } = await gradientError(backend, model.parameters.all(), {
    record: (g) =>
      model.objective.loss(
        g,
        batchInputs(g, SHAPE, () => WINDOWS),
      ),
    nElements: 8,
  })
  expect(error, worst).toBeLessThan(2e-3)
})

test("the bundled model's logits in a batch are libllama's for each sequence alone", async () => {
  using source = openGguf(BUNDLED_GGUF)
  using parameters = new Parameters(backend)
  const model = trainableLlama(source, parameters, () => true)
  const tokens = heldoutTokens(50)
  const windows = [tokens.subarray(0, 25), tokens.subarray(25, 50)]
  const { nVocab } = model.hp.shape
  using scratch = new Scratch(backend.bufferType)
  using g = new Graph(1000)
  const batch = batchInputs(g, { nTokens: 24, nSequences: 2, nVocab }, () => windows)
  const logits = g.output(forwardLlama(g, model, { batch }))
  g.plan(scratch)
  g.fillInputs()
  await backend.compute(g, true)
  const found = g.read(logits, new Float32Array(48 * nVocab))
  const expected = windows.flatMap((window) => referenceLogits(BUNDLED_GGUF, window.subarray(0, 24), { cacheType: F32 }))
  for (const [i, row] of expected.entries())
    expect(relativeError(found.subarray(i * nVocab, (i + 1) * nVocab), row)).toBeLessThan(2 * TOLERANCE.f16)
})

test('quantised weights, other shapes and other architectures are refused', () => {
  using parameters = new Parameters(backend)
  using source = openGguf(BUNDLED_GGUF)
  const quantised = new Map([...source.tensors].map(([name, info]) => [name, { ...info, type: 8 }]))
  expect(() => trainableLlama({ ...source, tensors: quantised }, parameters, () => true)).toThrow(
    /is q8_0, and training starts from/,
  )
  expect(() => trainableLlama({ ...source, tensors: new Map() }, parameters, () => true)).toThrow(/no tensor 'token_embd.weight'/)
  const other = { ...source, metadata: () => 'qwen2' }
  expect(() => trainableLlama(other, parameters, () => true)).toThrow(/is gguf of 'qwen2'/)
})
