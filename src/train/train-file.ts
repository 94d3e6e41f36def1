/** A run from files to a file: a base model and a text in, what was learnt out. What is learnt is the task's business. */
import { rm } from 'node:fs/promises'
import { KvasirError } from '../core/errors.ts'
import { Backend } from '../ggml/backend.ts'
import { llama } from '../models/llama.ts'
import { loadTokenizer } from '../text/load.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import { type GgufSource, openGguf } from '../weights/gguf.ts'
import { hasCheckpoint, type RunSettings } from './checkpoint.ts'
import type { Objective } from './objective.ts'
import { TRAIN_DEFAULTS, type TrainOptions } from './run-settings.ts'
import { Parameters } from './parameters.ts'
import type { TrainProgress } from './train-progress.ts'
import { readTrainText } from './text.ts'
import { train, type TrainReport } from './train.ts'

export interface TrainFiles extends Partial<TrainOptions> {
  /** A GGUF of f32, f16 or bf16. */
  readonly model: string
  /** Text, perhaps gzipped. */
  readonly file: string
  /** The file to write; beside it `OUT.checkpoint`, while it is not finished, and `OUT.curve.json` and `.svg`. */
  readonly out: string
  readonly nThreads: number
  /** Share of the text to measure by. */
  readonly heldOut?: number
  /** Tokens of the chat template, written out in the text, are read as such. */
  readonly parseSpecial?: boolean
  readonly onProgress?: (progress: TrainProgress) => void
  readonly signal?: AbortSignal
}

export interface Task {
  readonly objective: Objective
  /** What decides the course besides the base, the text and the settings. */
  readonly identity: RunSettings
  /** What is made smaller first, for so many steps; AdamW begins anew after it. */
  readonly first?: { readonly objective: Objective; readonly steps: number } | undefined
  readonly save: (path: string) => Promise<void>
}

/** Tokens of the text that are held out, as a share. */
const HELD_OUT = 0.02

/**
 * Called again with the same options after it was stopped, it goes on. `begin` adds parameters.
 * Errors: those of {@link train}, of `begin`, and of reading files.
 */
export async function trainFile(
  files: TrainFiles,
  begin: (base: GgufSource, parameters: Parameters) => Task,
): Promise<TrainReport> {
  const { model, file, out, nThreads, heldOut = HELD_OUT, parseSpecial, onProgress, signal, ...rest } = files
  using base = openGguf(model)
  using backend = new Backend(nThreads)
  using parameters = new Parameters(backend)
  const options = { ...TRAIN_DEFAULTS, ...rest }
  checkWindow(base, options.nTokens)
  const { objective, identity, first, save } = begin(base, parameters)
  using tokenizer = loadTokenizer(base)
  const text = readTrainText(file, tokenizer, { nTokens: options.nTokens, heldOut, ...(parseSpecial && { parseSpecial }) })
  const checkpoint = `${out}.checkpoint`
  const common = { text, onProgress, signal, identity: { ...identity, base: fingerprint(base) } }
  const checkpointBefore = `${out}.first.checkpoint`
  if (first && first.steps > 0 && !hasCheckpoint(checkpoint)) {
    const report = await train(backend, first.objective, {
      ...{ ...common, options: { ...options, steps: first.steps }, checkpoint: checkpointBefore },
      ...{ title: `training ${out}, first part`, curve: `${out}.first.curve` },
    })
    if (report.isStopped) return report
    for (const { trained } of parameters.trained()) for (const block of Object.values(trained!)) block.data.fill(0)
  }
  const report = await train(backend, objective, {
    ...{ ...common, options, checkpoint, title: `training ${out}`, curve: `${out}.curve` },
  })
  if (report.isStopped) return report
  await save(out)
  for (const path of [checkpoint, checkpointBefore]) await rm(path, { force: true })
  return report
}

function checkWindow(base: GgufSource, nTokens: number): void {
  const { nCtxTrain } = llama.hyperparameters(base).shape
  if (nTokens <= nCtxTrain) return
  throw new KvasirError('usage', { reason: `a window of ${nTokens} tokens, and the model's context has ${nCtxTrain}` })
}
