/** The tokenizer of a GGUF file: libllama's, so the ids are llama.cpp's. */
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from '../ggml/bindings.ts'
import { llama } from '../ggml/libllama.ts'
import type { WeightSource } from '../weights/source.ts'
import { cutText, SpecialFinder } from './cuts.ts'
import { loadVocab } from './gguf-vocab.ts'
import { checkToken, joinPieces, type Pieces } from './token-pieces.ts'
import type { EncodeOptions, Tokenizer } from './tokenizer.ts'

const ATTR_UNKNOWN = 1 << 0
const ATTR_CONTROL = 1 << 3
const ATTR_USER_DEFINED = 1 << 4

/** Pre-tokenizers that libllama has written out by hand; the others are `std::regex` patterns, see `cuts.ts`. */
const WITHOUT_REGEX = new Set(
  (
    'llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe glm4 chatglm-bpe chameleon ' +
    'gpt-2 phi-2 gigachat a.x-4.0 mellum mellum2 exaone exaone4 mpt olmo jais trillion granite-docling ' +
    'qwen2 qwen35 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2 laguna ' +
    'starcoder refact command-r smollm codeshell minerva-7b gemma4 sarvam-moe'
  ).split(' '),
)

export class GgufTokenizer implements Tokenizer, Pieces {
  readonly nVocab: number
  readonly bos: number | null
  readonly eos: number | null
  readonly addBos: boolean
  readonly addsSpace: boolean
  readonly #addEos: boolean
  readonly #limitsRuns: boolean
  /** Finders of the special tokens that are parsed always, and with `parseSpecial`. */
  readonly #finders = new Map<boolean, SpecialFinder>()
  #model: Pointer | null
  readonly #vocab: Pointer

  /** Reads the vocabulary; the source may be closed afterwards. Errors: `tokenizer_invalid`. */
  constructor(source: WeightSource) {
    const api = llama()
    this.#model = loadVocab(source)
    const vocab = api.llama_model_get_vocab(this.#model)
    const orNull = (id: number) => (id < 0 ? null : id)
    const isSpm = source.metadata('tokenizer.ggml.model') === 'llama'
    const pre = source.metadata('tokenizer.ggml.pre')
    this.#vocab = vocab
    this.nVocab = api.llama_vocab_n_tokens(vocab)
    this.bos = orNull(api.llama_vocab_bos(vocab))
    this.eos = orNull(api.llama_vocab_eos(vocab))
    this.addBos = api.llama_vocab_get_add_bos(vocab)
    this.#addEos = api.llama_vocab_get_add_eos(vocab)
    this.addsSpace = (source.metadata('tokenizer.ggml.add_space_prefix') ?? isSpm) === true
    this.#limitsRuns = !isSpm && !(typeof pre === 'string' && WITHOUT_REGEX.has(pre))
  }

  /** The vocabulary's address; its functions end the process on a token it does not have. */
  #vocabFor(token?: number): Pointer {
    if (this.#model === null) throw new KvasirError('closed')
    if (token !== undefined) checkToken(token, this.nVocab)
    return this.#vocab
  }

  isEog(token: number): boolean {
    return llama().llama_vocab_is_eog(this.#vocabFor(), token)
  }

  isControl(token: number): boolean {
    return this.#hasAttr(token, ATTR_CONTROL | ATTR_UNKNOWN)
  }

  #hasAttr(token: number, attr: number): boolean {
    return (llama().llama_vocab_get_attr(this.#vocabFor(token), token) & attr) !== 0
  }

  encode(text: string, { addSpecial = true, parseSpecial = false }: EncodeOptions = {}): Int32Array {
    const parts = cutText(text, this.#limitsRuns, () => this.#finder(parseSpecial))
    if (parts.length === 1) return this.#tokenize(text, addSpecial, parseSpecial)
    const ids = parts.map((part) => this.#tokenize(part, false, parseSpecial))
    if (addSpecial && this.addBos) ids.unshift(Int32Array.of(this.bos!))
    if (addSpecial && this.#addEos) ids.push(Int32Array.of(this.eos!))
    const whole = new Int32Array(ids.reduce((length, part) => length + part.length, 0))
    let at = 0
    for (const part of ids) {
      whole.set(part, at)
      at += part.length
    }
    return whole
  }

  #finder(parseSpecial: boolean): SpecialFinder {
    const known = this.#finders.get(parseSpecial)
    if (known) return known
    const attr = ATTR_USER_DEFINED | (parseSpecial ? ATTR_CONTROL | ATTR_UNKNOWN : 0)
    const tokens = Array.from({ length: this.nVocab }, (_, token) => token).filter((token) => this.#hasAttr(token, attr))
    const finder = new SpecialFinder(tokens.map((token) => this.text(token)))
    this.#finders.set(parseSpecial, finder)
    return finder
  }

  #tokenize(text: string, addSpecial: boolean, parseSpecial: boolean): Int32Array {
    const vocab = this.#vocabFor()
    const bytes = Buffer.from(text)
    const { llama_tokenize } = llama()
    let ids = new Int32Array(bytes.length + 4) // a token is a byte at least; a space, BOS and EOS may be added
    let n = llama_tokenize(vocab, bytes, bytes.length, ids, ids.length, addSpecial, parseSpecial)
    if (n < 0 && n > -(2 ** 31)) {
      ids = new Int32Array(-n)
      n = llama_tokenize(vocab, bytes, bytes.length, ids, ids.length, addSpecial, parseSpecial)
    }
    if (n < 0) throw new KvasirError('invalid_request', { reason: 'the text has more than 2^31 tokens' })
    return ids.slice(0, n)
  }

  piece(token: number, special = false): Uint8Array {
    const vocab = this.#vocabFor(token)
    const { llama_token_to_piece } = llama()
    let bytes = new Uint8Array(32)
    let n = llama_token_to_piece(vocab, token, bytes, bytes.length, 0, special)
    if (n < 0) {
      bytes = new Uint8Array(-n)
      n = llama_token_to_piece(vocab, token, bytes, bytes.length, 0, special)
    }
    return bytes.subarray(0, n)
  }

  text(token: number): string {
    return llama().llama_vocab_get_text(this.#vocabFor(token), token)
  }

  decode(tokens: ArrayLike<number>, special = false): string {
    return joinPieces(this, tokens, special)
  }

  [Symbol.dispose](): void {
    if (this.#model !== null) llama().llama_model_free(this.#model)
    this.#model = null
  }
}
