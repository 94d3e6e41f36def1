/** That what methods need of training can be built from its pieces: each with its gradients against differences. */
import { afterAll, expect, test } from 'vitest'
import { Backend } from '../../src/ggml/backend.ts'
import type { Graph } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { F32 } from '../../src/ggml/types.ts'
import { type Decoder, embed } from '../../src/models/decoder.ts'
import { linear } from '../../src/nn/linear.ts'
import {
  type AttendTraining,
  byHead,
  denseTraining,
  probabilities,
  rotatedHeads,
  valuesByHead,
  weigh,
} from '../../src/train/trainable-attention.ts'
import { type Batch, batchInputs } from '../../src/train/batch.ts'
import { forwardLlama, logitsOf, runLayer } from '../../src/train/trainable-llama.ts'
import type { Parameter } from '../../src/train/parameter.ts'
import { backward, gradientError } from '../support/gradients.ts'
import { normals } from '../support/random.ts'
import { TINY, tinyLlama, type TinyLlama } from '../support/tiny-llama.ts'

const backend = new Backend(1)
afterAll(() => backend[Symbol.dispose]())

const { headDim, nHead, nEmbd, nVocab } = TINY.shape
const WINDOWS = [Int32Array.of(1, 5, 2, 5, 9, 0), Int32Array.of(7, 7, 3, 10, 4, 8)]
const inputs = (g: Graph): Batch => batchInputs(g, { nTokens: 5, nSequences: 2, nVocab }, () => WINDOWS)

/** New parameters of random values. */
function added(model: TinyLlama, shapes: { readonly [name: string]: readonly number[] }): Parameter[] {
  return Object.entries(shapes).map(([name, ne], i) => {
    const p = model.parameters.add(name, ne)
    p.data.set(normals(p.data.length, 50 + i).map((x) => 0.4 * x))
    return p
  })
}

test('an adapter on a frozen base: a network over the heads of the scores of the layer before, and low-rank queries and keys', async () => {
  using model = tinyLlama(backend)
  const adapter = added(model, { w1: [nHead, 6], w2: [6, nHead], q: [nEmbd, nHead * 3], k: [nEmbd, nHead * 3] })
  const [w1, w2, wq, wk] = adapter.map(({ tensor }) => tensor) as [Tensor, Tensor, Tensor, Tensor]
  const frozen = { hp: model.hp, weights: model.constants }
  const record = (g: Graph): Tensor => {
    const batch = inputs(g)
    const { nTokens: T, nSequences: B } = batch
    let scores: Tensor
    const attend: AttendTraining = (layer, x) => {
      const v = valuesByHead(g, layer, { x, batch })
      if (layer.il === 0) {
        const q = rotatedHeads(g, layer, 'q', { x, batch })
        const k = rotatedHeads(g, layer, 'k', { x, batch })
        scores = g.scale(g.mulMat(k, q), 1 / Math.sqrt(headDim)) // [T, T, H · B]
      } else {
        const split = g.reshape(scores, T, T, nHead, B)
        const heads = g.reshape(g.cont(g.permute(split, 1, 2, 0, 3)), nHead, T * T * B) // a matrix: weights are not repeated
        const mixed = g.reshape(g.add(g.mulMat(w2, g.silu(g.mulMat(w1, heads))), heads), nHead, T, T, B)
        const back = g.reshape(g.cont(g.permute(mixed, 2, 0, 1, 3)), T, T, nHead * B)
        const small = (weight: Tensor) => byHead(g, g.reshape(g.mulMat(weight, x), 3, nHead, T * B), batch)
        scores = g.add(back, g.scale(g.mulMat(small(wk), small(wq)), 1 / Math.sqrt(3)))
      }
      return linear(g, layer.output, weigh(g, { v, p: g.softMaxExt(scores, batch.mask, 1) }, batch))
    }
    return g.crossEntropyLoss(forwardLlama(g, frozen, { batch, attend }), batch.targets)
  }
  const { error, worst } = await gradientError(backend, adapter, { record })
  expect(error, worst).toBeLessThan(2e-3)
  const base = model.parameters.get('blk.0.attn_q.weight')!
  expect(base.trained!.gradient.data.every((x) => x === 0)).toBe(true)
})

interface Shared {
  readonly k: Tensor
  readonly v: Tensor
}

/** Both layers read the keys and values that the second made, of tokens before their own; the first token reads nothing. */
function iteration(g: Graph, weights: Decoder, { batch, shared }: { batch: Batch; shared: Shared }) {
  const T = batch.nTokens
  // A row must see something; the first one's output is multiplied by 0.
  const mask = g.input(F32, [T, T], (data) => {
    for (let i = 0; i < data.length; i++) data[i] = i % T < Math.max(1, Math.floor(i / T)) ? 0 : -Infinity
  })
  const seen = g.input(F32, [1, T * batch.nSequences], (data) => data.forEach((_, i) => (data[i] = i % T === 0 ? 0 : 1)))
  let made = shared
  const attend: AttendTraining = (layer, x) => {
    const q = rotatedHeads(g, layer, 'q', { x, batch })
    const o = weigh(g, { v: shared.v, p: probabilities(g, layer, { q, k: shared.k }, mask) }, batch)
    if (layer.il === 1) {
      const k = rotatedHeads(g, layer, 'k', { x, batch })
      made = { k, v: valuesByHead(g, layer, { x, batch }) }
    }
    return linear(g, layer.output, g.mul(o, seen))
  }
  let x = embed(g, weights, batch)
  for (const layer of weights.layers) x = runLayer(g, layer, { x, attend })
  return { x, made }
}

function zeros(g: Graph, { nTokens, nSequences }: Batch): Shared {
  const heads = TINY.shape.nHeadKv * nSequences
  const zero = (...ne: number[]) => g.input(F32, ne, (data) => data.fill(0))
  return { k: zero(headDim, nTokens, heads), v: zero(nTokens, headDim, heads) }
}

const UNUSED = ['blk.0.attn_k.weight', 'blk.0.attn_v.weight']

test('layers that read the keys and values of another, by iterations through which gradients go back', async () => {
  using model = tinyLlama(backend)
  const record = (g: Graph): Tensor => {
    const batch = inputs(g)
    const first = iteration(g, model.weights, { batch, shared: zeros(g, batch) })
    const second = iteration(g, model.weights, { batch, shared: first.made })
    return g.crossEntropyLoss(logitsOf(g, model.weights, second.x), batch.targets)
  }
  const parameters = model.parameters.all().filter(({ name }) => !UNUSED.includes(name))
  const { error, worst } = await gradientError(backend, parameters, { record, nElements: 6 })
  expect(error, worst).toBeLessThan(2e-3)
})

test('iterations with constant weights count, and no gradients go back through them', async () => {
  using model = tinyLlama(backend)
  const parameters = model.parameters.all().filter(({ name }) => !UNUSED.includes(name))
  const gradients = async (nConstant: number) => {
    for (const { trained } of parameters) trained!.gradient.data.fill(0)
    await backward(backend, parameters, (g) => {
      const batch = inputs(g)
      let shared = zeros(g, batch)
      for (let i = 0; i < nConstant; i++) shared = iteration(g, model.constants, { batch, shared }).made
      shared = iteration(g, model.weights, { batch, shared }).made
      const { x } = iteration(g, model.weights, { batch, shared })
      return g.crossEntropyLoss(logitsOf(g, model.weights, x), batch.targets)
    })
    return parameters.map(({ trained }) => trained!.gradient.data.slice())
  }
  // Five tokens are exact after five iterations; one more changes nothing, neither in the loss nor in the gradients.
  const [none, four, five] = [await gradients(0), await gradients(4), await gradients(5)]
  expect(none).not.toEqual(five)
  const most = (a: Float32Array[], b: Float32Array[]) =>
    Math.max(...a.flatMap((x, i) => [...x.map((y, j) => Math.abs(y - b[i]![j]!))]))
  expect(most(four, five)).toBeLessThan(1e-6)
  expect(most(none, five)).toBeGreaterThan(1e-4)
})

test('a whole model of constants learns nothing', async () => {
  using model = tinyLlama(backend)
  const record = (g: Graph) => {
    const batch = inputs(g)
    const attend = denseTraining(g, batch)
    return g.crossEntropyLoss(forwardLlama(g, { weights: model.constants }, { batch, attend }), batch.targets)
  }
  await expect(backward(backend, model.parameters.all(), record)).rejects.toThrow(/the loss does not depend on/)
})
