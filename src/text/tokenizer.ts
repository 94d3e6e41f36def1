/** Text ↔ token ids. One implementation per file format: libllama's vocabularies for GGUF, tokenizer.json for Hugging Face. */
import type { WeightSource } from '../weights/source.ts'

export interface EncodeOptions {
  /** Add BOS/EOS as the model's metadata says (default true). */
  readonly addSpecial?: boolean
  /** Read `<|end|>` and the like as the tokens they name, not as text (default false). */
  readonly parseSpecial?: boolean
}

export interface Tokenizer extends Disposable {
  readonly nVocab: number
  /** Beginning and end of sequence; null where the vocabulary has none. */
  readonly bos: number | null
  readonly eos: number | null
  /** Whether `addSpecial` puts BOS in front. */
  readonly addBos: boolean
  /** True for every token that ends a generation (EOS, end of turn, …). */
  isEog(token: number): boolean
  encode(text: string, options?: EncodeOptions): Int32Array
  /** The bytes of one token; perhaps not whole UTF-8 characters. Special tokens are empty unless `special`. */
  piece(token: number, special?: boolean): Uint8Array
  /** The text of a token as the vocabulary writes it, for messages and `inspect`. */
  text(token: number): string
  decode(tokens: ArrayLike<number>, special?: boolean): string
}

export type LoadTokenizer = (source: WeightSource) => Tokenizer
