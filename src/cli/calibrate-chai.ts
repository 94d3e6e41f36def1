/** `kvasir calibrate chai`: finds how many clusters of heads each layer of a model has. */
import { z } from 'zod'
import { calibrationPath } from '../attention/share/chai/calibration.ts'
import { parseCount } from '../core/sizes.ts'
import { bundledModel } from '../engine/model.ts'
import { threadsFor } from '../engine/threads.ts'
import { calibrateChai as calibrate } from '../train/chai.ts'
import { define } from './command.ts'
import { onInterrupt } from './interrupt.ts'
import { LOAD_OPTIONS, MODEL_OPTION } from './model-options.ts'
import { toNumber, usage } from './options.ts'
import { Progress } from './progress.ts'

const count = (fallback: number, most: number) => z.int().min(1).max(most).default(fallback)

export const calibrateChai = define({
  name: 'calibrate chai',
  arguments: '',
  about: 'find how many clusters of heads each layer of a model has (CHAI)',
  examples: [
    'kvasir calibrate chai -m model.gguf -f text.txt',
    'kvasir calibrate chai -f text.txt -o half.chai.json --ratio 0.5',
  ],
  options: {
    ...MODEL_OPTION,
    file: { short: 'f', hint: 'FILE', about: 'a text like those to come; it may be gzipped', schema: z.string().optional() },
    out: {
      short: 'o',
      hint: 'FILE',
      about: 'the .json file to write, and beside it the curves as .html; left out, MODEL.chai.json',
      schema: z.string().optional(),
    },
    samples: { hint: 'N', about: 'windows of text', convert: parseCount, schema: count(256, 2 ** 20) },
    'ctx-size': { short: 'c', hint: 'N', about: 'tokens of a window', convert: parseCount, schema: count(128, 4096) },
    'loss-samples': {
      hint: 'N',
      about:
        'windows by which it is measured what clusters cost, layer by layer; 0 for none, which is quick and knows elbows only',
      convert: parseCount,
      schema: z
        .int()
        .min(0)
        .max(2 ** 20)
        .default(8),
    },
    'max-loss': {
      hint: 'NATS',
      about: 'what a layer may cost at most (KL to dense, per token); where its elbow costs more, it gets more clusters',
      convert: toNumber,
      schema: z.number().min(0).default(0.02),
    },
    ratio: {
      hint: 'PART',
      about: 'clusters in all layers as a part of all heads, put where they count most; in place of elbows',
      convert: toNumber,
      schema: z.number().gt(0).max(1).optional(),
    },
    seed: { short: 's', hint: 'N', about: 'of the choice of windows', convert: parseCount, schema: z.int().min(0).default(0) },
    threads: LOAD_OPTIONS.threads,
  },
  async run({ model = bundledModel(), file, out = calibrationPath(model), ctxSize, maxLoss, threads, ...rest }) {
    if (file === undefined) throw usage('give a text with -f')
    using progress = new Progress()
    using interrupt = onInterrupt('SIGTERM')
    const report = await calibrate({
      ...{ model, file, out, ...rest, nTokens: ctxSize, mostLoss: maxLoss },
      nThreads: threadsFor(threads),
      onProgress: progress.calibrating,
      signal: interrupt.signal,
    })
    progress.clear()
    const part = `${(100 * report.ratio).toFixed(1)}% of the keys`
    process.stdout.write(`${out}: ${report.clusters.join(', ')} clusters of ${report.nHeadKv} heads, ${part}\n`)
  },
})
