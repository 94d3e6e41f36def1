import type { WeightSource } from '../weights/source.ts'
import { GgufTokenizer } from './gguf-tokenizer.ts'
import { HfTokenizer } from './hf-tokenizer.ts'
import type { Tokenizer } from './tokenizer.ts'

/** The tokenizer that belongs to the weights; the source may be closed afterwards. Errors: `tokenizer_invalid`. */
export function loadTokenizer(source: WeightSource): Tokenizer {
  return source.format === 'gguf' ? new GgufTokenizer(source) : new HfTokenizer(source)
}
