/** The sampling part of a checked body → the engine's parameters. */
import type { SamplingParams } from '../core/sampling.ts'
import { samplingSchema } from '../core/sampling.ts'
import { invalid } from './error-body.ts'
import type { GenerationBody, LogitBias } from './schema.ts'
import type { ServedEngine } from './served-engine.ts'

/** What bans a token; see {@link samplingSchema}. */
const BAN = -100

function toBiases(engine: ServedEngine, given: LogitBias): Record<string, number> {
  const { tokenizer } = engine
  const biases: Record<string, number> = {}
  for (const [name, value] of Array.isArray(given) ? given : Object.entries(given)) {
    const isText = Array.isArray(given) && typeof name === 'string'
    const tokens = isText ? tokenizer.encode(name, { addSpecial: false, parseSpecial: true }) : [Number(name)]
    for (const token of tokens) {
      if (token >= tokenizer.nVocab) throw invalid('logit_bias', `token ${token} is not in the vocabulary of ${tokenizer.nVocab}`)
      biases[token] = value === false ? BAN : value
    }
  }
  return biases
}

/** Parameters of choice `choice` of `n`: each has a seed of its own, derived from the one given. */
export function toSampling(engine: ServedEngine, body: GenerationBody): (choice: number) => SamplingParams {
  const logit_bias = toBiases(engine, body.logit_bias)
  const { seed, ...rest } = samplingSchema.parse({ ...body, logit_bias })
  return (choice) => ({ ...rest, seed: seed === -1 ? -1 : seed + choice })
}
