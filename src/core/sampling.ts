/** Sampling parameters: names, ranges and defaults are llama.cpp's; the server, the library and the command line share this schema. */
import { z } from 'zod'

export const samplingSchema = z.object({
  temperature: z.number().min(0).max(100).default(0.8).describe('0 is greedy'),
  top_k: z.number().int().min(-1).default(40).describe('keep the k most likely tokens; 0 and -1 keep all'),
  top_p: z.number().min(0).max(1).default(0.95).describe('keep the smallest set whose probability reaches p; 1 keeps all'),
  min_p: z.number().min(0).max(1).default(0.05).describe('drop tokens below this share of the most likely one; 0 keeps all'),
  repeat_penalty: z.number().gt(0).default(1).describe('divide the logits of recent tokens; 1 is off'),
  repeat_last_n: z.number().int().min(-1).default(64).describe('how many recent tokens the penalties look at; -1 is all'),
  presence_penalty: z.number().min(-2).max(2).default(0).describe('taken from the logit of every recent token'),
  frequency_penalty: z.number().min(-2).max(2).default(0).describe('the same, times how often it occurred'),
  seed: z.number().int().min(-1).default(-1).describe('-1 draws one'),
  logit_bias: z
    .record(z.string().regex(/^\d+$/), z.number())
    .default({})
    .describe('token id → added to its logit; -100 or less bans it'),
})

export type SamplingParams = z.infer<typeof samplingSchema>
