/** The keys of a GGUF file that make its vocabulary, with the checks that libllama leaves out. Errors: `tokenizer_invalid`. */
import { KvasirError } from '../core/errors.ts'
import type { MetadataValue, WeightSource } from '../weights/source.ts'

/** An id of -1, as unsigned: "there is none". */
const NO_TOKEN = 0xffffffff
/** Ids that generation depends on; other wrong ones are left out, as libllama does. */
const NEEDED_ID = /\.(bos|eos|eot|eom)_token_id$/

export class VocabReader {
  readonly #source: WeightSource

  constructor(source: WeightSource) {
    this.#source = source
  }

  fail(reason: string): never {
    throw new KvasirError('tokenizer_invalid', { path: this.#source.path, reason })
  }

  string(key: string): string | undefined {
    const value = this.#source.metadata(key)
    if (value === undefined || typeof value === 'string') return value
    return this.fail(`'${key}' is not a text`)
  }

  #list(key: string): readonly MetadataValue[] | undefined {
    const value = this.#source.metadata(key)
    if (value === undefined || Array.isArray(value)) return value as readonly MetadataValue[] | undefined
    return this.fail(`'${key}' is not a list`)
  }

  strings(key: string): readonly string[] | undefined {
    const list = this.#list(key)
    if (list?.some((item) => typeof item !== 'string')) this.fail(`'${key}' is not a list of texts`)
    return list as readonly string[] | undefined
  }

  /** `length` numbers that are `right`. */
  numbers(key: string, length: number, right: (value: number) => boolean): readonly number[] | undefined {
    const list = this.#list(key)
    if (list === undefined) return undefined
    if (list.length !== length) this.fail(`'${key}' has ${list.length} entries for ${length} tokens`)
    const wrong = list.findIndex((item) => typeof item !== 'number' || !right(item))
    if (wrong >= 0) this.fail(`'${key}' of token ${wrong} is ${JSON.stringify(list[wrong])}`)
    return list as readonly number[]
  }

  tokens(): readonly string[] {
    const tokens = this.strings('tokenizer.ggml.tokens') ?? this.fail('it has no list of tokens')
    if (tokens.length === 0) this.fail('its list of tokens is empty')
    const seen = new Map<string, number>()
    for (const [i, token] of tokens.entries()) {
      const text = token.split('\0', 1)[0] || `[EMPTY_${i}]`
      const other = seen.get(text)
      if (other !== undefined) this.fail(`tokens ${other} and ${i} have the same text ${JSON.stringify(text)}`)
      seen.set(text, i)
    }
    return tokens
  }

  merges(): readonly string[] {
    const merges = this.strings('tokenizer.ggml.merges') ?? []
    const wrong = merges.findIndex((merge) => merge.indexOf(' ', 1) < 0)
    if (wrong >= 0) this.fail(`merge ${wrong} (${JSON.stringify(merges[wrong])}) is not two parts`)
    return merges
  }

  /** The keys that name a special token, with their ids. */
  ids(nVocab: number): [key: string, id: number][] {
    const keys = this.#source.metadataKeys().filter((key) => /^tokenizer\.ggml\.\w+_token_id$/.test(key))
    const ids = keys.map((key): [string, MetadataValue | undefined] => [key, this.#source.metadata(key)])
    return ids.filter((entry): entry is [string, number] => {
      const [key, id] = entry
      if (typeof id !== 'number' || !Number.isInteger(id)) return this.fail(`'${key}' is not a token`)
      if (id >= 0 && id < nVocab) return true
      if (NEEDED_ID.test(key) && id !== -1 && id !== NO_TOKEN) this.fail(`'${key}' is ${id}, but there are ${nVocab} tokens`)
      return false
    })
  }

  flags(): [key: string, value: boolean][] {
    const keys = this.#source.metadataKeys().filter((key) => /^tokenizer\.ggml\.add_\w+$/.test(key))
    return keys.map((key) => {
      const value = this.#source.metadata(key)
      return [key, typeof value === 'boolean' ? value : this.fail(`'${key}' is not true or false`)]
    })
  }
}
