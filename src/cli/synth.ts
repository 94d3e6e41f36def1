/** `kvasir synth`: writes a model of random weights in the shape of a real one, to measure speed and memory with. */
import { z } from 'zod'
import { formatBytes, parseCount } from '../core/sizes.ts'
import { bundledModel } from '../engine/model.ts'
import { SYNTH_SHAPES } from '../weights/synth-shapes.ts'
import { SYNTH_TYPES, type SynthType, synthesize } from '../weights/synth.ts'
import { define } from './command.ts'
import { onInterrupt } from './interrupt.ts'
import { usage } from './options.ts'
import { Progress } from './progress.ts'

const SHAPES = [...SYNTH_SHAPES.keys()]
const TYPES = Object.keys(SYNTH_TYPES) as SynthType[]
const count = z.int().min(1).optional()

export const synth = define({
  name: 'synth',
  arguments: '',
  about: 'write a model of random weights, to measure with',
  examples: [
    'kvasir synth --like llama-3.2-1b --type q8_0 -o random.gguf',
    'kvasir synth --like llama-7b --layers 2 --type q4_0 -o small.gguf',
  ],
  options: {
    like: { hint: 'NAME', about: `whose shape: ${SHAPES.join(', ')}`, schema: z.enum(SHAPES).optional() },
    type: { hint: 'TYPE', about: `type of the weights: ${TYPES.join(', ')}`, schema: z.enum(TYPES).default('f16') },
    out: { short: 'o', hint: 'FILE', about: 'the .gguf file to write', schema: z.string().optional() },
    layers: { hint: 'N', about: "layers, if not the shape's own number", convert: parseCount, schema: count },
    vocab: { hint: 'N', about: "size of the vocabulary, if not the shape's own", convert: parseCount, schema: count },
    ctx: { hint: 'N', about: "context it says it was trained for, if not the shape's own", convert: parseCount, schema: count },
    'layer-types': {
      hint: 'TYPES',
      about: 'layers that read the keys and values of another, as LCKV writes them: 0_20x20_21',
      schema: z.string().optional(),
    },
    seed: { short: 's', hint: 'N', about: 'of the random weights', convert: Number, schema: z.int().min(0).default(0) },
  },
  async run({ like, out, ...options }) {
    if (like === undefined || out === undefined) throw usage('give a shape with --like and a file with -o')
    using progress = new Progress()
    using interrupt = onInterrupt()
    const { signal } = interrupt
    const result = await synthesize({
      ...options,
      like,
      out,
      tokenizerFrom: bundledModel(),
      onProgress: progress.writing,
      signal,
    })
    progress.clear()
    process.stdout.write(`${result.path}: ${result.nParameters} parameters, ${formatBytes(result.nBytes)}\n`)
  },
})
