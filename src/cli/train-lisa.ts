/** `kvasir train lisa`: learns what layers need to share the attention of the layer before, for a model that stays as it is. */
import { z } from 'zod'
import { parseCount } from '../core/sizes.ts'
import { bundledModel } from '../engine/model.ts'
import { trainLisa as train, writeLisaStart } from '../train/lisa.ts'
import { define } from './command.ts'
import { onInterrupt } from './interrupt.ts'
import { usage } from './options.ts'
import { Progress } from './progress.ts'
import { sayHow, TRAIN_OPTIONS, trainFiles } from './train-options.ts'

const steps = (fallback: number) => z.int().min(0).default(fallback)

export const trainLisa = define({
  name: 'train lisa',
  arguments: '',
  about: 'learn an adapter by which layers share attention (LiSA)',
  examples: [
    'kvasir train lisa --layers 3-5 -f text.txt -o adapter.gguf',
    'kvasir train lisa -m big.gguf --steps 0 -o untrained.gguf',
    "kvasir run --attention lisa:adapter=adapter.gguf -p 'Once upon a time'",
  ],
  options: {
    layers: {
      hint: 'SPANS',
      about: 'layers that take the attention of the one before, as 10-20/24; auto: the second half',
      schema: z.string().default('auto'),
    },
    rank: {
      hint: 'R',
      about: 'elements of a head that keys keep; left out, a sixth or less',
      convert: parseCount,
      schema: z.int().min(2).optional(),
    },
    hidden: {
      hint: 'N',
      about: 'inner width of the network over the heads, 0 for none; left out, a quarter of the heads, at least 8',
      convert: parseCount,
      schema: z.int().min(0).max(65536).optional(),
    },
    ...TRAIN_OPTIONS,
    'weight-decay': { ...TRAIN_OPTIONS['weight-decay'], schema: z.number().min(0).max(1).default(0) },
    lr: { ...TRAIN_OPTIONS.lr, schema: z.number().min(0).max(1).default(2e-3) },
    'first-steps': { hint: 'N', about: 'steps layer by layer, before --steps', convert: parseCount, schema: steps(200) },
    steps: {
      ...TRAIN_OPTIONS.steps,
      about: 'steps of AdamW, end to end; 0 writes what an adapter begins as, for any model',
      schema: steps(1000),
    },
  },
  async run(values) {
    const { layers, rank, hidden, seed, out, firstSteps } = values
    const choice = { layers, rank, hidden, seed }
    if (values.steps === 0) {
      if (out === undefined) throw usage('give a file to write with -o')
      await writeLisaStart({ ...choice, model: values.model ?? bundledModel(), out })
      process.stdout.write(`${out}: an adapter that has learnt nothing\n`)
      return
    }
    const files = trainFiles(values)
    using progress = new Progress()
    using interrupt = onInterrupt('SIGTERM')
    const report = await train({ ...files, ...choice, firstSteps, onProgress: progress.training, signal: interrupt.signal })
    progress.clear()
    sayHow(report, files.out)
  },
})
