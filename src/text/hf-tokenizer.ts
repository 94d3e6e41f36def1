/** The tokenizer of a Hugging Face folder: tokenizer.json, read by @huggingface/tokenizers. */
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { KvasirError, reasonOf } from '../core/errors.ts'
import type { WeightSource } from '../weights/source.ts'
import { bytesOfCharacters } from './byte-alphabet.ts'
import { endTokens } from './end-tokens.ts'
import {
  readEndTokens,
  readTokenizerConfig,
  readTokenizerFile,
  type TokenizerConfig,
  type TokenizerFile,
  toList,
} from './hf-files.ts'
import { addedAround, hasComponent, requireUsable } from './hf-parts.ts'
import { checkToken, joinPieces, type Pieces } from './token-pieces.ts'
import type { EncodeOptions, Tokenizer } from './tokenizer.ts'

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/

export class HfTokenizer implements Tokenizer, Pieces {
  readonly nVocab: number
  readonly bos: number | null
  readonly eos: number | null
  readonly addBos: boolean
  readonly addsSpace: boolean
  readonly #path: string
  /** Reads the texts of all added tokens as tokens. */
  readonly #parsing: Library
  /** Reads the texts of control tokens as text. */
  readonly #plain: Library
  readonly #prefix: readonly number[]
  readonly #suffix: readonly number[]
  readonly #added: ReadonlyMap<number, string>
  readonly #controls: ReadonlySet<number>
  readonly #ends: ReadonlySet<number>
  readonly #isByteLevel: boolean

  /** Errors: `tokenizer_invalid`. */
  constructor(source: WeightSource) {
    this.#path = source.path
    const file = readTokenizerFile(source.path)
    const config = readTokenizerConfig(source.path)
    const added = file.added_tokens ?? []
    requireUsable(source.path, file)
    this.#parsing = this.#build(file, config)
    const idOf = (text: string) => this.#parsing.token_to_id(text)
    const byConfig = endTokens(idOf)
    const isControl = (token: { id: number; special: boolean }) => token.special || byConfig.has(token.id)
    this.#controls = new Set(added.filter(isControl).map(({ id }) => id))
    this.#added = new Map(added.map(({ id, content }) => [id, content]))

    // One vocabulary is enough for both: the second is built around an empty one, and then given the first's.
    const others = added.filter((token) => !isControl(token))
    this.#plain = this.#build({ ...file, added_tokens: others, model: { type: 'BPE', vocab: {}, merges: [] } }, config)
    this.#plain.model = this.#parsing.model

    const configured = (key: string) => toList(source.metadata(key)).filter((id) => typeof id === 'number')
    const ids = this.#parsing.get_vocab().values()
    const nTokens = [...ids].reduce((most, id) => Math.max(most, id + 1), 0)
    this.nVocab = Math.max(nTokens, configured('vocab_size')[0] ?? 0)
    this.bos = this.#tokenOf(config.bos_token, configured('bos_token_id'))
    this.eos = this.#tokenOf(config.eos_token, [...readEndTokens(source.path), ...configured('eos_token_id')])
    const ends = [
      ...byConfig,
      ...readEndTokens(source.path),
      ...configured('eos_token_id'),
      ...(this.eos === null ? [] : [this.eos]),
    ]
    this.#ends = new Set(ends)

    const around = addedAround(file, idOf)
    this.#prefix = withToken(around.prefix, this.bos, config.add_bos_token, 'first')
    this.#suffix = withToken(around.suffix, this.eos, config.add_eos_token, 'last')
    this.addBos = this.bos !== null && this.#prefix[0] === this.bos
    this.#isByteLevel = hasComponent(file.decoder, 'ByteLevel') || hasComponent(file.pre_tokenizer, 'ByteLevel')
    const [first] = this.encode('a', { addSpecial: false })
    this.addsSpace = first !== undefined && this.piece(first)[0] === 0x20
  }

  #build(file: TokenizerFile, config: TokenizerConfig): Library {
    const parts = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...file }
    return this.#attempt(() => new Library({ ...parts, added_tokens: file.added_tokens ?? [] }, config))
  }

  /** The library trusts its files; what it throws over a damaged one becomes an error of ours. */
  #attempt<T>(action: () => T): T {
    try {
      return action()
    } catch (error) {
      throw new KvasirError(
        'tokenizer_invalid',
        { path: this.#path, reason: `tokenizer.json: ${reasonOf(error)}` },
        { cause: error },
      )
    }
  }

  #tokenOf(text: string | null | undefined, configured: readonly number[]): number | null {
    const id = typeof text === 'string' ? this.#parsing.token_to_id(text) : configured[0]
    return id !== undefined && id >= 0 && id < this.nVocab ? id : null
  }

  isEog(token: number): boolean {
    return this.#ends.has(token)
  }

  isControl(token: number): boolean {
    return this.#controls.has(token)
  }

  encode(text: string, { addSpecial = true, parseSpecial = false }: EncodeOptions = {}): Int32Array {
    const library = parseSpecial ? this.#parsing : this.#plain
    const wellFormed = Buffer.from(text).toString()
    const ids: readonly (number | undefined)[] = this.#attempt(
      () => library.encode(wellFormed, { add_special_tokens: false }).ids,
    )
    const known = ids.filter((id) => id !== undefined) // what has no token, and no token for the unknown either
    return Int32Array.from(addSpecial ? [...this.#prefix, ...known, ...this.#suffix] : known)
  }

  piece(token: number, special = false): Uint8Array {
    checkToken(token, this.nVocab)
    if (this.#controls.has(token) && !special) return new Uint8Array()
    const added = this.#added.get(token)
    if (added !== undefined) return Buffer.from(added)
    const text = this.text(token)
    if (this.#isByteLevel) return bytesOfCharacters(text)
    const byte = BYTE_TOKEN.exec(text)
    return byte ? Uint8Array.of(Number.parseInt(byte[1]!, 16)) : Buffer.from(text.replaceAll('▁', ' '))
  }

  text(token: number): string {
    checkToken(token, this.nVocab)
    return this.#parsing.id_to_token(token) ?? ''
  }

  decode(tokens: ArrayLike<number>, special = false): string {
    return joinPieces(this, tokens, special)
  }

  [Symbol.dispose](): void {}
}

/** `tokens` with `token` at one end or without it, as tokenizer_config.json wants; as they are if it does not say. */
function withToken(
  tokens: readonly number[],
  token: number | null,
  wanted: boolean | null | undefined,
  end: 'first' | 'last',
): readonly number[] {
  if (token === null || wanted === null || wanted === undefined) return tokens
  const others = tokens.filter((other) => other !== token)
  if (!wanted) return others
  return end === 'first' ? [token, ...others] : [...others, token]
}
