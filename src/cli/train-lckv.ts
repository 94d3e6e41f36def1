/** `kvasir train lckv`: makes a model whose layers read the keys and values of one out of an ordinary model. */
import { z } from 'zod'
import { SHARING_DEFAULTS } from '../core/layer-types.ts'
import { parseCount } from '../core/sizes.ts'
import { trainLckv as train } from '../train/lckv.ts'
import { define } from './command.ts'
import { onInterrupt } from './interrupt.ts'
import { toNumber } from './options.ts'
import { Progress } from './progress.ts'
import { sayHow, TRAIN_OPTIONS, trainFiles } from './train-options.ts'

const passes = z.int().min(1).max(512).optional()

export const trainLckv = define({
  name: 'train lckv',
  arguments: '',
  about: 'make a model whose layers share the keys and values of one (LCKV)',
  examples: [
    'kvasir train lckv --layers 0_4x4_5 -f text.txt -o shared.gguf --steps 2000 --lr 5e-4',
    'kvasir train lckv -m shared.gguf -f more.txt -o better.gguf --lr 1e-4 --distil 1 --teacher base.gguf',
  ],
  options: {
    layers: {
      hint: 'TYPES',
      about: 'which layer each layer reads, as LCKV writes it: 0_20x20_21; left out, as the model has it',
      schema: z.string().optional(),
    },
    'forward-passes': {
      hint: 'M',
      about: `passes over the condensed layers without gradients; left out, as the model has it, or ${SHARING_DEFAULTS.forwardPasses}`,
      convert: parseCount,
      schema: passes,
    },
    'backward-passes': {
      hint: 'B',
      about: `passes with gradients, after those; left out, as the model has it, or ${SHARING_DEFAULTS.backwardPasses}`,
      convert: parseCount,
      schema: passes,
    },
    'force-nodiag': { about: 'in no layer does a token see itself', schema: z.boolean().optional() },
    start: {
      hint: 'HOW',
      about: 'how the projections of a layer that is read begin: mean (over the layers that read it) or copy',
      schema: z.enum(['mean', 'copy']).default('mean'),
    },
    distil: {
      hint: 'PART',
      about: "part of the targets that is what the teacher says of the next token, 0 to 1; the rest is the text's",
      convert: toNumber,
      schema: z.number().min(0).max(1).default(0),
    },
    teacher: { hint: 'MODEL', about: 'the teacher, an ordinary model; left out, the base', schema: z.string().optional() },
    ...TRAIN_OPTIONS,
  },
  async run(values) {
    const files = trainFiles(values)
    using progress = new Progress()
    using interrupt = onInterrupt('SIGTERM')
    const { layers, forceNodiag, forwardPasses, backwardPasses, start, distil, teacher } = values
    const own = { layers, forceNodiag, forwardPasses, backwardPasses, start, distil, teacher }
    const report = await train({ ...files, ...own, onProgress: progress.training, signal: interrupt.signal })
    progress.clear()
    sayHow(report, files.out)
  },
})
