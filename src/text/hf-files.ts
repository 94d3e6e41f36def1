/** The files of a Hugging Face folder that concern text, checked as far as we use them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { KvasirError, reasonOf } from '../core/errors.ts'

/** Ids beyond this do not occur; a damaged one must not make us allocate. */
const ID_LIMIT = 2 ** 24

const isTokenId = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0 && Number(value) < ID_LIMIT
const tokenId = z.custom<number>(isTokenId, 'is not a token id')
/** A component of the tokenizer, or a list of them under a name of their own. */
const component = z.looseObject({ type: z.string().optional() }).nullish()

const addedToken = z.looseObject({ id: tokenId, content: z.string().min(1), special: z.boolean().default(false) })

const bpe = z.looseObject({
  type: z.literal('BPE').optional(),
  vocab: z.custom<Record<string, number>>(
    (vocab) => isObject(vocab) && Object.values(vocab).every(isTokenId),
    'is not a table of ids',
  ),
  merges: z.custom<readonly (string | readonly [string, string])[]>(
    (merges) => Array.isArray(merges) && merges.every(isMerge),
    'is not a list of pairs',
  ),
  end_of_word_suffix: z.literal('').nullish(),
  continuing_subword_prefix: z.literal('').nullish(),
})

const unigram = z.looseObject({
  type: z.literal('Unigram').optional(),
  vocab: z.custom<readonly (readonly [string, number])[]>(
    (vocab) => Array.isArray(vocab) && vocab.length > 0 && vocab.every(isScoredToken),
    'is not a list of tokens with scores',
  ),
  unk_id: tokenId.nullish(),
})

const tokenizerSchema = z.looseObject({
  added_tokens: z.array(addedToken).nullish(),
  normalizer: component,
  pre_tokenizer: component,
  post_processor: component,
  decoder: component,
  model: z.looseObject({ type: z.string().optional(), vocab: z.unknown().optional() }),
})

/** A token by its text, or by an object that holds it. */
const tokenText = z.union([z.string(), z.looseObject({ content: z.string() }).transform(({ content }) => content)]).nullish()
const namedTemplate = z.object({ name: z.string(), template: z.string() })

const configSchema = z.looseObject({
  bos_token: tokenText,
  eos_token: tokenText,
  add_bos_token: z.boolean().nullish(),
  add_eos_token: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(namedTemplate)]).nullish(),
})

const generationSchema = z.looseObject({ eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish() })

export type TokenizerFile = z.infer<typeof tokenizerSchema> & {
  readonly model: z.infer<typeof bpe> | z.infer<typeof unigram>
}
export type TokenizerConfig = z.infer<typeof configSchema>

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isMerge(merge: unknown): boolean {
  if (typeof merge === 'string') return merge.indexOf(' ', 1) > 0
  return Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === 'string')
}

function isScoredToken(entry: unknown): boolean {
  return Array.isArray(entry) && entry.length === 2 && typeof entry[0] === 'string' && typeof entry[1] === 'number'
}

const FILE = 'tokenizer.json'

/** Errors: `tokenizer_invalid`, naming the file; a missing one too. */
export function readTokenizerFile(folder: string): TokenizerFile {
  const file = readJson(folder, FILE, tokenizerSchema) ?? fail(folder, `${FILE} is missing`)
  const isUnigram = file.model.type === 'Unigram' || Array.isArray(file.model.vocab)
  return { ...file, model: check(folder, FILE, { value: file.model, schema: isUnigram ? unigram : bpe, at: ['model'] }) }
}

/** tokenizer_config.json; empty where there is none. */
export function readTokenizerConfig(folder: string): TokenizerConfig {
  return readJson(folder, 'tokenizer_config.json', configSchema) ?? {}
}

/** Tokens that end a generation by generation_config.json; none where there is no such file. */
export function readEndTokens(folder: string): readonly number[] {
  return toList(readJson(folder, 'generation_config.json', generationSchema)?.eos_token_id)
}

/** chat_template.jinja, which newer models have instead of an entry in tokenizer_config.json. */
export function readTemplateFile(folder: string): string | undefined {
  return readText(folder, 'chat_template.jinja')
}

export function toList<T>(value: T | readonly T[] | null | undefined): readonly T[] {
  if (value === null || value === undefined) return []
  return Array.isArray(value) ? value : [value as T]
}

function fail(folder: string, reason: string, cause?: unknown): never {
  throw new KvasirError('tokenizer_invalid', { path: folder, reason }, { cause })
}

function readText(folder: string, name: string): string | undefined {
  try {
    return readFileSync(join(folder, name), 'utf8')
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    return isMissing ? undefined : fail(folder, `${name} cannot be read (${reasonOf(error)})`, error)
  }
}

function readJson<T extends z.ZodType>(folder: string, name: string, schema: T): z.infer<T> | undefined {
  const text = readText(folder, name)
  if (text === undefined) return undefined
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    return fail(folder, `${name} is not JSON (${reasonOf(error)})`, error)
  }
  return check(folder, name, { value: json, schema, at: [] })
}

interface Checked<T> {
  readonly value: unknown
  readonly schema: T
  /** Where in the file it stands. */
  readonly at: readonly string[]
}

function check<T extends z.ZodType>(folder: string, name: string, { value, schema, at }: Checked<T>): z.infer<T> {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const { path, message } = result.error.issues[0]!
  const place = [...at, ...path].join('.')
  return fail(folder, `${name}: ${place === '' ? '' : `'${place}' `}${message}`, result.error)
}
