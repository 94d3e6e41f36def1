/** The settings of a run, the usual values of each, and their limits. */
import { KvasirError } from '../core/errors.ts'

export interface TrainOptions {
  /** 0 writes what is begun with. */
  readonly steps: number
  /** Tokens of a window, windows of a batch, and batches of a step. */
  readonly nTokens: number
  readonly nSequences: number
  readonly accumulate: number
  readonly rate: number
  readonly finalRate: number
  /** Steps. */
  readonly warmup: number
  readonly weightDecay: number
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  /** Longest gradient; longer ones are shortened to it. 0 for any. */
  readonly clip: number
  readonly seed: number
  /** Steps between measurements on held-out text, besides the first and the last; and the batches of one. */
  readonly measureEvery: number
  readonly measureBatches: number
}

export const TRAIN_DEFAULTS: TrainOptions = {
  steps: 1000,
  nTokens: 256,
  nSequences: 4,
  accumulate: 1,
  rate: 1e-4,
  finalRate: 1e-5,
  warmup: 50,
  weightDecay: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  clip: 1,
  seed: 0,
  measureEvery: 100,
  measureBatches: 4,
}

/** Errors: `usage`. */
export function checkOptions(options: TrainOptions): void {
  const whole = ['nTokens', 'nSequences', 'accumulate', 'measureEvery', 'measureBatches'] as const
  const fail = (name: string, wanted: string): never => {
    throw new KvasirError('usage', { reason: `${name} must be ${wanted}` })
  }
  for (const name of whole) if (!Number.isInteger(options[name]) || options[name] < 1) fail(name, 'a whole number above 0')
  for (const name of ['steps', 'seed', 'warmup'] as const)
    if (!Number.isInteger(options[name]) || options[name] < 0 || options[name] >= 2 ** 32) fail(name, 'a whole number from 0')
  for (const name of ['rate', 'eps'] as const) if (!(options[name] > 0 && options[name] < 1)) fail(name, 'between 0 and 1')
  for (const name of ['finalRate', 'weightDecay', 'clip'] as const)
    if (!(options[name] >= 0 && Number.isFinite(options[name]))) fail(name, 'a number from 0')
  for (const name of ['beta1', 'beta2'] as const) if (!(options[name] >= 0 && options[name] < 1)) fail(name, 'from 0 to below 1')
}
