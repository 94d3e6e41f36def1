/** Options about the model and about sampling, which several commands share. Names and defaults are llama.cpp's. */
import { z } from 'zod'
import { canonicalSpec, DENSE } from '../attention/spec.ts'
import { samplingSchema } from '../core/sampling.ts'
import { parseCount } from '../core/sizes.ts'
import type { LoadOptions } from '../engine/model.ts'
import { type Option, type Options, type Values, toNumber } from './options.ts'

const cacheType = z.enum(['f16', 'f32']).default('f16')

export const MODEL_OPTION = {
  model: {
    short: 'm',
    hint: 'MODEL',
    about: 'a .gguf file or a Hugging Face folder; left out, the bundled model',
    schema: z.string().optional(),
  },
} as const satisfies Options

export const LOAD_OPTIONS = {
  ...MODEL_OPTION,
  'ctx-size': {
    short: 'c',
    hint: 'N',
    about: 'context per sequence in tokens, e.g. 32k; 0 is what the model was trained for',
    convert: parseCount,
    schema: z
      .int()
      .min(0)
      .max(2 ** 30)
      .default(0),
  },
  'batch-size': {
    short: 'b',
    hint: 'N',
    about: 'tokens per step at most',
    convert: parseCount,
    schema: z.int().min(1).default(2048),
  },
  'ubatch-size': {
    short: 'ub',
    hint: 'N',
    about: 'tokens per graph at most',
    convert: parseCount,
    schema: z.int().min(1).default(512),
  },
  threads: {
    short: 't',
    hint: 'N',
    about: 'threads; left out, one for each core we may use; fewer compute while other programs want the cores',
    convert: toNumber,
    schema: z.int().min(1).max(512).optional(),
  },
  'cache-type-k': { short: 'ctk', hint: 'TYPE', about: 'type of cached keys', schema: cacheType },
  'cache-type-v': { short: 'ctv', hint: 'TYPE', about: 'type of cached values', schema: cacheType },
  type: { hint: 'TYPE', about: 'quantise the weights to this type while loading, e.g. q8_0', schema: z.string().optional() },
  attention: {
    hint: 'SPEC',
    about: 'how attention is computed, e.g. NAME:option=value, several joined by +; kvasir methods lists what there is',
    convert: (text: string) => canonicalSpec(text),
    schema: z.string().default(DENSE),
  },
} as const satisfies Options

/** The options of {@link LOAD_OPTIONS} as the library takes them. */
export function loadOptions(values: Values<Omit<typeof LOAD_OPTIONS, 'model'>>): LoadOptions {
  return {
    nCtx: values.ctxSize,
    nBatch: values.batchSize,
    nUbatch: values.ubatchSize,
    typeK: values.cacheTypeK,
    typeV: values.cacheTypeV,
    attention: values.attention,
    ...(values.threads !== undefined && { nThreads: values.threads }),
    ...(values.type !== undefined && { type: values.type }),
  }
}

const shape = samplingSchema.shape
function sampling<S extends z.ZodType>(schema: S, about: string) {
  return { hint: 'N', about, convert: toNumber, schema } as const satisfies Option
}

export const SAMPLING_OPTIONS = {
  temp: sampling(shape.temperature, 'temperature; 0 is greedy'),
  'top-k': sampling(shape.top_k, shape.top_k.description!),
  'top-p': sampling(shape.top_p, shape.top_p.description!),
  'min-p': sampling(shape.min_p, shape.min_p.description!),
  'repeat-penalty': sampling(shape.repeat_penalty, shape.repeat_penalty.description!),
  'repeat-last-n': sampling(shape.repeat_last_n, shape.repeat_last_n.description!),
  'presence-penalty': sampling(shape.presence_penalty, shape.presence_penalty.description!),
  'frequency-penalty': sampling(shape.frequency_penalty, shape.frequency_penalty.description!),
  seed: { ...sampling(shape.seed, shape.seed.description!), short: 's' },
} as const satisfies Options

export function samplingOf(values: Values<typeof SAMPLING_OPTIONS>) {
  return {
    temperature: values.temp,
    topK: values.topK,
    topP: values.topP,
    minP: values.minP,
    repeatPenalty: values.repeatPenalty,
    repeatLastN: values.repeatLastN,
    presencePenalty: values.presencePenalty,
    frequencyPenalty: values.frequencyPenalty,
    seed: values.seed,
  }
}
