/** Text ↔ token ids. One implementation per file format: libllama's vocabularies for GGUF, tokenizer.json for Hugging Face. */
export interface EncodeOptions {
  /** Add BOS/EOS as the model's metadata says (default true). */
  readonly addSpecial?: boolean
  /** Read `<|end|>` and the like as the tokens they name, not as text (default false). */
  readonly parseSpecial?: boolean
}

/** Errors: `invalid_request` for a number that is no token, `closed` after the tokenizer was. */
export interface Tokenizer extends Disposable {
  readonly nVocab: number
  /** Beginning and end of sequence; null where the vocabulary has none. */
  readonly bos: number | null
  readonly eos: number | null
  /** Whether `addSpecial` puts BOS in front. */
  readonly addBos: boolean
  /** True for every token that ends a generation (EOS, end of turn, …). */
  isEog(token: number): boolean
  /** Halves of surrogate pairs are read as U+FFFD. */
  encode(text: string, options?: EncodeOptions): Int32Array
  /** The bytes of one token; perhaps not whole UTF-8 characters. Special tokens are empty unless `special`. */
  piece(token: number, special?: boolean): Uint8Array
  /** The text of a token as the vocabulary writes it, for messages and `inspect`. */
  text(token: number): string
  /**
   * The pieces as one text, with U+FFFD for bytes that are no UTF-8. The space that a vocabulary puts in front of every text
   * (SentencePiece) is taken off again, so that decode(encode(text)) is `text`.
   */
  decode(tokens: ArrayLike<number>, special?: boolean): string
}
