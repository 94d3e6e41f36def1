/** A llama small enough to check every gradient of: random weights, no file. */
import type { Backend } from '../../src/ggml/backend.ts'
import { layerShapes, type ModelShape } from '../../src/core/shape.ts'
import type { Hyperparameters } from '../../src/models/architecture.ts'
import type { Rope } from '../../src/nn/rope.ts'
import { forwardLlama, llamaWeights, type TrainableLlama } from '../../src/train/trainable-llama.ts'
import type { Objective } from '../../src/train/objective.ts'
import { Parameters } from '../../src/train/parameters.ts'
import type { TrainText } from '../../src/train/text.ts'
import type { WeightSource } from '../../src/weights/source.ts'
import type { TensorSource } from '../../src/weights/upload.ts'
import { normals } from './random.ts'

const SHAPE = { arch: 'llama', nLayer: 2, nEmbd: 16, nHead: 4, nHeadKv: 2, headDim: 8, nFf: 24, nVocab: 11, nCtxTrain: 64 }

export function tinyShape(changed: Partial<typeof SHAPE & Pick<ModelShape, 'sharing'>> = {}): ModelShape {
  const shape = { ...SHAPE, ...changed }
  return { ...shape, layers: layerShapes(shape) }
}

export const TINY: Hyperparameters & { readonly rope: Rope } = {
  shape: tinyShape(),
  normEps: 1e-5,
  rope: { mode: 0, nDims: 8, freqBase: 100, nCtxTrain: 64, scaling: { type: 'none' } },
  tiedOutput: false,
}

export interface TinyLlama extends TrainableLlama, Disposable {
  readonly parameters: Parameters
  readonly objective: Objective
}

export function tinyLlama(backend: Backend, hp: Hyperparameters = TINY): TinyLlama {
  const parameters = new Parameters(backend)
  const add = (name: string, ne: readonly number[], mean = 0) => {
    const p = parameters.get(name) ?? parameters.add(name, ne)
    const values = normals(p.data.length, seedOf(name, hp.shape.nLayer))
    p.data.set(values.map((x) => mean + 0.4 * x))
    return p
  }
  const source = (as: 'tensor' | 'constant'): TensorSource => ({
    has: () => false,
    matrix: (name, nIn, nOut) => add(name, [nIn, nOut])[as],
    rows: (name, width, n) => add(name, [width, n])[as],
    vector: (name, n) => add(name, [n], 1)[as],
    constant: () => {
      throw new Error('the tiny model has none')
    },
  })
  const gguf = { format: 'gguf' } as WeightSource
  const weights = llamaWeights(hp, gguf, source('tensor'))
  const model = { hp, weights, constants: llamaWeights(hp, gguf, source('constant')) }
  const objective: Objective = {
    parameters,
    nVocab: hp.shape.nVocab,
    loss: (g, batch) => g.crossEntropyLoss(forwardLlama(g, model, { batch }), batch.targets),
  }
  return { ...model, parameters, objective, [Symbol.dispose]: () => parameters[Symbol.dispose]() }
}

const OF_LAYER = ['attn_norm', 'attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_norm', 'ffn_gate', 'ffn_up', 'ffn_down']
const BEHIND = ['output_norm', 'output']

/** A tensor has the same values in whatever order the model asks for them. */
function seedOf(name: string, nLayer: number): number {
  const [, il, of] = /^(?:blk\.(\d+)\.)?(\w+)\.weight$/.exec(name)!
  if (il !== undefined) return 1 + OF_LAYER.length * Number(il) + OF_LAYER.indexOf(of!)
  return of === 'token_embd' ? 0 : 1 + OF_LAYER.length * nLayer + BEHIND.indexOf(of!)
}

/** Tokens of which each but some follows from the one before: something to learn, in windows of 8. */
export function tinyText(nTokens: number): TrainText {
  const noise = normals(nTokens, 5)
  const { nVocab } = TINY.shape
  const tokens = new Int32Array(nTokens)
  for (let i = 1; i < nTokens; i++) tokens[i] = (tokens[i - 1]! * 3 + (noise[i]! > 0.6 ? 2 : 1)) % nVocab
  const nTrain = Math.floor(nTokens * 0.8)
  const heldOut = [0, 1, 2, 3].map((i) => tokens.subarray(nTrain + 9 * i, nTrain + 9 * i + 9))
  return { path: 'tiny', train: tokens.subarray(0, nTrain), heldOut, hash: `tiny ${nTokens}`, bos: null }
}
