/** What `bench` can be told. The command line derives its flags and help from this schema; lists are as llama-bench writes them. */
import { z } from 'zod'
import { canonicalSpec, DENSE, splitSpecs } from '../attention/spec.ts'
import type { AttentionSetting } from '../core/request.ts'
import { parseCount } from '../core/sizes.ts'

/** `512,32k`, `[512, 32768]` or `512`. */
function counts(min: number) {
  return z
    .custom<string | number | readonly number[]>((value) => value !== undefined)
    .transform((value, context) => {
      try {
        if (typeof value !== 'string') return typeof value === 'number' ? [value] : [...value]
        return value
          .split(',')
          .filter((part) => part.trim() !== '')
          .map(parseCount)
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message })
        return z.NEVER
      }
    })
    .pipe(z.array(z.number().int().min(min)))
}

/** What our caches can hold; any other type would end the process. */
const CACHE_TYPES = ['f16', 'f32'] as const

export const benchSchema = z.object({
  model: z.string().min(1).describe('a .gguf file, or a folder with config.json and *.safetensors'),
  nPrompt: counts(0).default([512]).describe('prompt lengths to read; 0 is none'),
  nGen: counts(0).default([128]).describe('numbers of tokens to generate one by one; 0 is none'),
  nDepth: counts(0).default([0]).describe('tokens already in the cache'),
  nParallel: counts(1).default([]).describe('sequences side by side: rows of llama-batched-bench instead of pp and tg'),
  repetitions: z.number().int().min(1).default(5).describe('timed runs of each test'),
  nBatch: z.number().int().min(1).default(2048).describe('tokens per step'),
  nUbatch: z.number().int().min(1).default(512).describe('tokens per graph'),
  nThreads: z.number().int().min(1).optional().describe('threads; default: one for each core we may use'),
  typeK: z.enum(CACHE_TYPES).default('f16').describe('type of cached keys'),
  typeV: z.enum(CACHE_TYPES).default('f16').describe('type of cached values'),
  repack: z.boolean().default(true).describe("put weights into the processor's own layouts"),
  attention: z
    .custom<string | readonly AttentionSetting[]>()
    .transform((given) => (typeof given === 'string' ? splitSpecs(given) : given).map((setting) => canonicalSpec(setting)))
    .pipe(z.array(z.string()).min(1))
    .default([DENSE])
    .describe('attention settings to compare; a comma before option= goes on with the setting before it'),
  versus: z.literal('llama.cpp').optional().describe('run this engine too, turn by turn, and print the ratio'),
  flashAttn: z.enum(['on', 'off', 'both']).default('both').describe("llama.cpp's flash attention; with both, the faster counts"),
  profile: z
    .boolean()
    .default(false)
    .describe('instead of speeds, where the time of a step goes: per part of a layer and per operation'),
  warmup: z.boolean().default(true).describe('one untimed run before each test'),
  seed: z.number().int().min(0).default(1).describe('of the random token ids'),
})

/** As a caller writes them. */
export type BenchInput = z.input<typeof benchSchema> & {
  readonly signal?: AbortSignal | undefined
  /** Lines about what is being run. */
  readonly onProgress?: ((line: string) => void) | undefined
}
export type BenchOptions = z.output<typeof benchSchema>
