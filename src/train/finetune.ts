/** Goes on training a whole model on a text, and writes it as a GGUF. */
import { rm } from 'node:fs/promises'
import { KvasirError } from '../core/errors.ts'
import { Backend } from '../ggml/backend.ts'
import { llama } from '../models/llama.ts'
import { loadTokenizer } from '../text/load.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import { type GgufSource, openGguf } from '../weights/gguf.ts'
import { forwardLlama, NODES_PER_LAYER, trainableLlama } from './llama.ts'
import type { Objective } from './objective.ts'
import { TRAIN_DEFAULTS, type TrainOptions } from './options.ts'
import { Parameters } from './parameters.ts'
import type { TrainProgress } from './progress.ts'
import { saveModel } from './save-model.ts'
import { readTrainText } from './text.ts'
import { train, type TrainReport } from './train.ts'

export interface FinetuneOptions extends Partial<TrainOptions> {
  /** A GGUF of f32, f16 or bf16. */
  readonly model: string
  /** Text, perhaps gzipped. */
  readonly file: string
  /** The model to write; beside it `OUT.checkpoint`, while it is not finished, and `OUT.curve.json` and `.svg`. */
  readonly out: string
  readonly nThreads: number
  /** Share of the text to measure by. */
  readonly heldOut?: number
  readonly onProgress?: (progress: TrainProgress) => void
  readonly signal?: AbortSignal
}

/** Tokens of the text that are held out, as a share. */
const HELD_OUT = 0.02

/** Called again with the same options after it was stopped, it goes on. Errors: those of {@link train}, and of reading files. */
export async function finetune(options: FinetuneOptions): Promise<TrainReport> {
  const { model, file, out, nThreads, heldOut = HELD_OUT, onProgress, signal, ...rest } = options
  using base = openGguf(model)
  using backend = new Backend(nThreads)
  using parameters = new Parameters(backend)
  const settings = { ...TRAIN_DEFAULTS, ...rest }
  const objective = languageModelling(base, parameters, settings.nTokens)
  using tokenizer = loadTokenizer(base)
  const text = readTrainText(file, tokenizer, { nTokens: settings.nTokens, heldOut })
  const checkpoint = `${out}.checkpoint`
  const report = await train(backend, objective, {
    options: settings,
    text,
    title: `training ${out}`,
    identity: { what: 'finetune', base: fingerprint(base) },
    checkpoint,
    curve: `${out}.curve`,
    onProgress,
    signal,
  })
  if (report.isStopped) return report
  await saveModel(base, { path: out, parameters })
  await rm(checkpoint, { force: true })
  return report
}

/** The next token, with all of the model's tensors learning. Errors: `usage` for a window beyond the model's context. */
export function languageModelling(base: GgufSource, parameters: Parameters, nTokens: number): Objective {
  const { nCtxTrain } = llama.hyperparameters(base).shape
  if (nTokens > nCtxTrain)
    throw new KvasirError('usage', { reason: `a window of ${nTokens} tokens, and the model's context has ${nCtxTrain}` })
  const model = trainableLlama(base, parameters, () => true)
  const { nLayer, nVocab } = model.hp.shape
  return {
    parameters,
    nVocab,
    maxNodes: NODES_PER_LAYER * (nLayer + 2),
    loss: (g, batch) => g.crossEntropyLoss(forwardLlama(g, model, { batch }), batch.targets),
  }
}
