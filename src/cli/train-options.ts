/** Options that every training run has, and what is said when it ends. */
import { z } from 'zod'
import { parseCount } from '../core/sizes.ts'
import { bundledModel } from '../engine/model.ts'
import { threadsFor } from '../engine/threads.ts'
import { TRAIN_DEFAULTS } from '../train/run-settings.ts'
import type { TrainFiles } from '../train/train-file.ts'
import type { TrainReport } from '../train/train.ts'
import { EXIT_INTERRUPTED } from './interrupt.ts'
import { LOAD_OPTIONS, MODEL_OPTION } from './model-options.ts'
import { type Options, toNumber, usage, type Values } from './options.ts'

const count = (fallback: number) => z.int().min(1).default(fallback)
const number = (fallback: number) => z.number().min(0).max(1).default(fallback)

export const TRAIN_OPTIONS = {
  ...MODEL_OPTION,
  file: { short: 'f', hint: 'FILE', about: 'the text to learn from; it may be gzipped', schema: z.string().optional() },
  'parse-special': {
    about: 'tokens of the chat template in the text (such as <|user|>) are read as tokens, not as text',
    schema: z.boolean().default(false),
  },
  out: { short: 'o', hint: 'FILE', about: 'the .gguf file to write', schema: z.string().optional() },
  steps: {
    hint: 'N',
    about: 'steps of AdamW; 0 writes what is begun with',
    convert: parseCount,
    schema: z.int().min(0).default(TRAIN_DEFAULTS.steps),
  },
  'ctx-size': {
    short: 'c',
    hint: 'N',
    about: 'tokens of a window of text',
    convert: parseCount,
    schema: count(TRAIN_DEFAULTS.nTokens),
  },
  windows: { hint: 'N', about: 'windows of a batch', convert: parseCount, schema: count(TRAIN_DEFAULTS.nSequences) },
  accumulate: { hint: 'N', about: 'batches of a step', convert: parseCount, schema: count(TRAIN_DEFAULTS.accumulate) },
  lr: { hint: 'RATE', about: 'learning rate', convert: toNumber, schema: number(TRAIN_DEFAULTS.rate) },
  'lr-min': {
    hint: 'RATE',
    about: 'learning rate of the last step; left out, a tenth of --lr',
    convert: toNumber,
    schema: z.number().min(0).max(1).optional(),
  },
  warmup: {
    hint: 'N',
    about: 'steps until the learning rate is reached',
    convert: parseCount,
    schema: z.int().min(0).default(TRAIN_DEFAULTS.warmup),
  },
  'weight-decay': { hint: 'X', about: 'of matrices', convert: toNumber, schema: number(TRAIN_DEFAULTS.weightDecay) },
  seed: {
    short: 's',
    hint: 'N',
    about: 'of the order of the text',
    convert: parseCount,
    schema: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .default(TRAIN_DEFAULTS.seed),
  },
  'held-out': {
    hint: 'PART',
    about: 'part of the text that is not learnt, but measured by',
    convert: toNumber,
    schema: number(0.02),
  },
  'measure-every': {
    hint: 'N',
    about: 'steps between measurements on held-out text',
    convert: parseCount,
    schema: count(TRAIN_DEFAULTS.measureEvery),
  },
  threads: LOAD_OPTIONS.threads,
} as const satisfies Options

/** The options of {@link TRAIN_OPTIONS} as training takes them. */
export function trainFiles(values: Values<typeof TRAIN_OPTIONS>): TrainFiles {
  const { file, out, lr } = values
  if (file === undefined || out === undefined) throw usage('give a text with -f and a file to write with -o')
  return {
    model: values.model ?? bundledModel(),
    ...{ file, out, steps: values.steps, warmup: values.warmup, seed: values.seed, accumulate: values.accumulate },
    nTokens: values.ctxSize,
    nSequences: values.windows,
    rate: lr,
    finalRate: values.lrMin ?? lr / 10,
    weightDecay: values.weightDecay,
    heldOut: values.heldOut,
    parseSpecial: values.parseSpecial,
    measureEvery: values.measureEvery,
    nThreads: threadsFor(values.threads),
  }
}

/** Where the run has come, on stdout; or how a stopped one goes on, on stderr. */
export function sayHow({ curve, step, steps, seconds, isStopped, checkpoint }: TrainReport, out: string): void {
  if (isStopped) {
    process.stderr.write(`stopped after step ${step} of ${steps}; the same command goes on from there (${checkpoint})\n`)
    process.exitCode = EXIT_INTERRUPTED
    return
  }
  const heldOut = curve.flatMap((point) => point.heldOut ?? [])
  const losses = curve.flatMap((point) => point.loss ?? [])
  const [name, values] = heldOut.length > 0 ? ['held-out text', heldOut] : ['the text', losses]
  const [before] = values
  if (step === 0) {
    process.stdout.write(`${out}: as it begins${before === undefined ? '' : `, loss on ${name} ${before.toFixed(3)}`}\n`)
    return
  }
  const loss = `loss on ${name} ${before?.toFixed(3)} before, ${values.at(-1)?.toFixed(3)} after`
  process.stdout.write(`${out}: ${step} steps in ${Math.ceil(seconds / 60)} min, ${loss}; curve in ${out}.curve.svg\n`)
}
