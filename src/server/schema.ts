/**
 * Request bodies: OpenAI's fields that we have, and llama.cpp's. Sampling fields and their defaults are those of
 * core/sampling.ts, so `temperature` left out is 0.8 here, not OpenAI's 1; `max_tokens` left out is -1: until the
 * context is full.
 */
import { z } from 'zod'
import type { AttentionSetting } from '../core/request.ts'
import { samplingSchema } from '../core/sampling.ts'

/** An array checked item by item up to its first fault: a body can hold millions of wrong items. */
function list<T>(item: z.ZodType<T>, { min = 0, max = Number.MAX_SAFE_INTEGER } = {}): z.ZodType<T[], T[]> {
  const schema = z
    .array(z.unknown())
    .min(min)
    .max(max)
    .transform((values, context) => {
      for (const [index, value] of values.entries()) {
        const parsed = item.safeParse(value)
        if (parsed.success) values[index] = parsed.data
        else {
          const issue = parsed.error.issues[0]!
          context.issues.push({ code: 'custom', input: value, message: issue.message, path: [index, ...issue.path] })
          return z.NEVER
        }
      }
      return values as T[]
    })
  return schema as unknown as z.ZodType<T[], T[]>
}

const isTokenId = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0
const isTokenArray = (value: unknown): value is number[] => Array.isArray(value) && value.every(isTokenId)

/** A text, or token ids. */
export type Prompt = string | number[]
const isPrompt = (value: unknown): value is Prompt => typeof value === 'string' || (isTokenArray(value) && value.length > 0)

const MAX_PROMPTS = 256
const prompt = z.custom<Prompt | Prompt[]>(
  (value) =>
    isPrompt(value) || (Array.isArray(value) && value.length > 0 && value.length <= MAX_PROMPTS && value.every(isPrompt)),
  `must be a string, an array of token ids, or an array of at most ${MAX_PROMPTS} of these, and not empty`,
)

const isStop = (value: unknown): value is string => typeof value === 'string' && value !== ''
const stop = z.custom<string | string[]>(
  (value) => isStop(value) || (Array.isArray(value) && value.length <= 16 && value.every(isStop)),
  'must be a string or an array of at most 16 strings, none of them empty',
)

/** OpenAI's map, or llama.cpp's pairs of a token id or text and a bias; `false` bans. */
export type LogitBias = Record<string, number | false> | [number | string, number | false][]
const isBias = (value: unknown): boolean => typeof value === 'number' || value === false
const logitBias = z.custom<LogitBias>(
  (value) =>
    Array.isArray(value)
      ? value.every((pair) => Array.isArray(pair) && (isTokenId(pair[0]) || typeof pair[0] === 'string') && isBias(pair[1]))
      : typeof value === 'object' &&
        value !== null &&
        Object.entries(value).every(([id, bias]) => /^\d{1,10}$/.test(id) && isBias(bias)),
  'must map token ids to numbers (or false), or be an array of [token, bias]',
)

const tokenLimit = z.number().int().min(-1).optional()

const common = {
  ...samplingSchema.shape,
  logit_bias: logitBias.default({}),
  model: z.string().optional(),
  n: z.number().int().min(1).max(16).default(1),
  stop: stop.default([]),
  max_tokens: tokenLimit,
  max_completion_tokens: tokenLimit,
  n_predict: tokenLimit,
  ignore_eos: z.boolean().default(false),
  num_ctx: z.number().int().min(1).optional(),
  /** The engine checks it, for it knows the methods and the model. */
  attention: z.custom<AttentionSetting>().optional(),
  stream: z.boolean().default(false),
  stream_options: z.object({ include_usage: z.boolean().default(false) }).optional(),
  return_progress: z.boolean().default(false),
}

/** A string, or text parts, which are joined by line breaks as llama.cpp joins them. */
const content = z
  .unknown()
  .optional()
  .transform((value, context): string => {
    const fault = (message: string, path: PropertyKey[] = []): string => {
      context.issues.push({ code: 'custom', input: value, message, path })
      return z.NEVER
    }
    if (value === undefined || value === null) return ''
    if (typeof value === 'string') return value
    if (!Array.isArray(value)) return fault('must be a string or an array of text parts')
    const texts: string[] = []
    for (const [index, part] of (value as ({ type?: unknown; text?: unknown } | null)[]).entries()) {
      if (part?.type !== 'text') return fault('only parts of type "text" are supported', [index])
      if (typeof part.text !== 'string') return fault('expected string', [index, 'text'])
      texts.push(part.text)
    }
    return texts.join('\n')
  })

const message = z.object({
  role: z.enum(['system', 'developer', 'user', 'assistant']).transform((role) => (role === 'developer' ? 'system' : role)),
  content: content as unknown as z.ZodType<string, string | { type: 'text'; text: string }[] | null | undefined>,
  tool_calls: z.array(z.unknown()).max(0, 'are not supported').nullish(),
})
const messages = list(message as z.ZodType<{ role: string; content: string }, z.input<typeof message>>, { min: 1, max: 16_384 })

export const chatSchema = z.object({
  ...common,
  messages,
  logprobs: z.boolean().default(false),
  top_logprobs: z.number().int().min(0).max(20).optional(),
})

export const completionSchema = z.object({
  ...common,
  prompt,
  logprobs: z.number().int().min(0).max(20).optional(),
  echo: z.boolean().default(false),
  best_of: z.number().int().min(1).optional(),
})

export const tokenizeSchema = z.object({
  content: z.string(),
  add_special: z.boolean().default(false),
  parse_special: z.boolean().default(true),
  with_pieces: z.boolean().default(false),
})
export const detokenizeSchema = z.object({ tokens: z.custom<number[]>(isTokenArray, 'must be an array of token ids') })
export const templateSchema = z.object({ messages })

export type ChatBody = z.input<typeof chatSchema>
/** A checked body of either kind: what the two have in common. */
export type GenerationBody = Omit<z.output<typeof chatSchema>, 'messages' | 'logprobs' | 'top_logprobs'>
