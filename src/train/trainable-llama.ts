/**
 * A llama that learns: the tensors of a model's file as parameters, and its forward pass in pieces, so that a method can put
 * its own attention in chosen layers, run some of them again, or read the weights without gradients.
 */
import { KvasirError } from '../core/errors.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { type Decoder, type DecoderLayer, embed, feedForward } from '../models/decoder.ts'
import { decoderWeights } from '../models/decoder-weights.ts'
import { LLAMA, llama } from '../models/llama.ts'
import type { Hyperparameters } from '../models/architecture.ts'
import { norm } from '../nn/norm.ts'
import type { WeightSource } from '../weights/source.ts'
import type { TensorSource } from '../weights/upload.ts'
import { type AttendTraining, denseTraining } from './trainable-attention.ts'
import type { Batch } from './batch.ts'
import type { Parameters } from './parameters.ts'

export interface TrainableLlama {
  readonly hp: Hyperparameters
  readonly weights: Decoder
  /** The same memory without gradients. */
  readonly constants: Decoder
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

/** The tensors of a llama's file, as `tensors` gives them. */
export function llamaWeights(hp: Hyperparameters, source: WeightSource, tensors: TensorSource): Decoder {
  return decoderWeights(LLAMA, hp, source, tensors)
}

/** One layer: f32[nEmbd, T · B] → f32[nEmbd, T · B]. */
export function runLayer(g: Graph, layer: DecoderLayer, { x, attend }: { x: Tensor; attend: AttendTraining }): Tensor {
  return feedForward(g, layer, g.add(attend(layer.attention, norm(g, layer.attentionNorm, x)), x))
}

/** Logits f32[nVocab, T · B]. */
export function logitsOf(g: Graph, weights: Decoder, x: Tensor): Tensor {
  return g.mulMat(weights.output, norm(g, weights.outputNorm, x))
}

/** The whole model, with dense attention or the layers' own. */
export function forwardLlama(
  g: Graph,
  { weights }: Pick<TrainableLlama, 'weights'>,
  { batch, attend = denseTraining(g, batch) }: { readonly batch: Batch; readonly attend?: AttendTraining },
): Tensor {
  const x = weights.layers.reduce((y, layer) => runLayer(g, layer, { x: y, attend }), embed(g, weights, batch))
  return logitsOf(g, weights, x)
}
