/**
 * A llama that learns: the tensors of a model's file as parameters, and its forward pass in pieces, so that a method can put
 * its own attention in chosen layers, run some of them again, or read the weights without gradients.
 */
import { KvasirError } from '../core/errors.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { type LlamaLayer, type LlamaWeights, llama, llamaWeights } from '../models/llama.ts'
import type { Hyperparameters } from '../models/model.ts'
import { gatedMlp } from '../nn/mlp.ts'
import { rmsNorm } from '../nn/norm.ts'
import type { WeightSource } from '../weights/source.ts'
import { type AttendTraining, denseTraining } from './trainable-attention.ts'
import type { Batch } from './batch.ts'
import type { Parameters } from './parameters.ts'

/** Nodes of a layer's forward pass, at most; methods with more say so. */
export const NODES_PER_LAYER = 64

export interface TrainableLlama {
  readonly hp: Hyperparameters
  readonly weights: LlamaWeights
  /** The same memory without gradients. */
  readonly constants: LlamaWeights
}

/**
 * The model of `source`, its tensors added to `parameters`; those of which `isTrained` is true of the name learn.
 * Errors: `model_unsupported` for other architectures and quantised weights, `model_invalid`, `out_of_memory`.
 */
export function trainableLlama(
  source: WeightSource,
  parameters: Parameters,
  isTrained: (name: string) => boolean,
): TrainableLlama {
  const hp = hyperparameters(source)
  return {
    hp,
    weights: llamaWeights(hp, source, parameters.from(source, { isTrained })),
    constants: llamaWeights(hp, source, parameters.from(source, { isTrained, as: 'constant' })),
  }
}

/** The model of `source` as it is, to compare with: its tensors do not learn, and are called `prefix` and their names. */
export function frozenLlama(
  source: WeightSource,
  parameters: Parameters,
  prefix: string,
): Pick<TrainableLlama, 'hp' | 'weights'> {
  const hp = hyperparameters(source)
  return { hp, weights: llamaWeights(hp, source, parameters.from(source, { isTrained: () => false, prefix })) }
}

function hyperparameters(source: WeightSource): Hyperparameters {
  const architecture = String(source.metadata('general.architecture') ?? source.metadata('model_type'))
  if (architecture === 'llama' && source.format === 'gguf') return llama.hyperparameters(source)
  const reason = `training knows GGUF files of llama models, and this is ${source.format} of '${architecture}'`
  throw new KvasirError('model_unsupported', { path: source.path, reason })
}

/** Rows of the embedding: f32[nEmbd, T · B]. */
export function embed(g: Graph, weights: LlamaWeights, batch: Batch): Tensor {
  return g.getRows(weights.tokenEmbedding, batch.tokens)
}

/** One layer: f32[nEmbd, T · B] → f32[nEmbd, T · B]. */
export function runLayer(g: Graph, layer: LlamaLayer, { x, attend }: { x: Tensor; attend: AttendTraining }): Tensor {
  const { attentionNorm, attention, mlpNorm, mlp } = layer
  const attended = g.add(attend(attention, rmsNorm(g, attentionNorm, x)), x)
  return g.add(gatedMlp(g, mlp, rmsNorm(g, mlpNorm, attended)), attended)
}

/** Logits f32[nVocab, T · B]. */
export function logitsOf(g: Graph, weights: LlamaWeights, x: Tensor): Tensor {
  return g.mulMat(weights.output, rmsNorm(g, weights.outputNorm, x))
}

/** The whole model, with dense attention or the layers' own. */
export function forwardLlama(
  g: Graph,
  { hp, weights }: Pick<TrainableLlama, 'hp' | 'weights'>,
  { batch, attend = denseTraining(g, batch, hp.shape.headDim) }: { readonly batch: Batch; readonly attend?: AttendTraining },
): Tensor {
  const x = weights.layers.reduce((y, layer) => runLayer(g, layer, { x: y, attend }), embed(g, weights, batch))
  return logitsOf(g, weights, x)
}
