/**
 * The vocabulary of a GGUF file, checked and given to libllama.
 *
 * libllama asserts where it does not expect a file to be wrong, and both an assertion and an exception that leaves its C
 * functions end the process. So it never sees the file: what makes the vocabulary is read and checked here, and copied into
 * metadata of our own. What a file could end the process with, and why it cannot:
 *
 * | in libllama                                            | here                                                    |
 * |--------------------------------------------------------|---------------------------------------------------------|
 * | hyper-parameters, split files, tensors (many asserts)  | not passed on                                           |
 * | no vocabulary, and Unigram's, WPM's, RWKV's asserts    | only `llama` (SentencePiece) and `gpt2` (BPE) are taken |
 * | two tokens with one text: assert                       | texts must differ, as C reads them                      |
 * | SentencePiece without a byte's token: throws in encode | all 256 are required                                    |
 * | BOS or EOS to be added, but none there: assert         | asked after loading                                     |
 * | pre-tokenizer `whitespace`: asserts on two spaces      | refused                                                 |
 * | stack overflow in `std::regex` on long runs            | `cuts.ts`; `exaone-moe` matches whole pages: refused    |
 *
 * The rest (an unknown pre-tokenizer, names that its rules for phi-3 miss) is thrown and caught inside its loading function.
 */
import type { Pointer } from '../ggml/bindings.ts'
import { ggml, takeGgmlError } from '../ggml/library.ts'
import { llama } from '../ggml/libllama.ts'
import type { WeightSource } from '../weights/source.ts'
import { VocabReader } from './gguf-keys.ts'

const MODELS = ['llama', 'gpt2']
const REFUSED_PRE = ['whitespace', 'exaone-moe']
const GGUF_TYPE_INT32 = 5
const GGUF_TYPE_FLOAT32 = 6
const N_TOKEN_TYPES = 7
const TYPE_BYTE = 6

/** A model of libllama that is only a vocabulary; to be freed with `llama_model_free`. Errors: `tokenizer_invalid`. */
export function loadVocab(source: WeightSource): Pointer {
  const reader = new VocabReader(source)
  const model = reader.string('tokenizer.ggml.model') ?? reader.fail('the file has none')
  if (!MODELS.includes(model)) reader.fail(`its kind is '${model}'; only ${MODELS.join(' and ')} are known`)
  const pre = reader.string('tokenizer.ggml.pre')
  if (pre !== undefined && REFUSED_PRE.includes(pre)) reader.fail(`the pre-tokenizer '${pre}' is not supported`)
  const tokens = reader.tokens()
  const types = reader.numbers('tokenizer.ggml.token_type', tokens.length, (x) => x >= 0 && x < N_TOKEN_TYPES)
  requireByteNumbers(reader, tokens, types)
  const scores = reader.numbers('tokenizer.ggml.scores', tokens.length, (x) => !Number.isNaN(x))
  if (model === 'llama') requireByteTokens(reader, tokens)

  const g = ggml()
  const metadata = g.gguf_init_empty()
  try {
    g.gguf_set_val_str(metadata, 'general.architecture', 'llama')
    g.gguf_set_val_str(metadata, 'general.name', reader.string('general.name') ?? '') // phi-3 has rules of its own
    g.gguf_set_val_str(metadata, 'tokenizer.ggml.model', model)
    if (pre !== undefined) g.gguf_set_val_str(metadata, 'tokenizer.ggml.pre', pre)
    g.gguf_set_arr_str(metadata, 'tokenizer.ggml.tokens', tokens, tokens.length)
    if (types) g.gguf_set_arr_data(metadata, 'tokenizer.ggml.token_type', GGUF_TYPE_INT32, Int32Array.from(types), types.length)
    if (scores)
      g.gguf_set_arr_data(metadata, 'tokenizer.ggml.scores', GGUF_TYPE_FLOAT32, Float32Array.from(scores), scores.length)
    if (model === 'gpt2') {
      const merges = reader.merges()
      g.gguf_set_arr_str(metadata, 'tokenizer.ggml.merges', merges, merges.length)
    }
    for (const [key, id] of reader.ids(tokens.length)) g.gguf_set_val_u32(metadata, key, id)
    for (const [key, value] of reader.flags()) g.gguf_set_val_bool(metadata, key, value)
    return load(reader, metadata)
  } finally {
    g.gguf_free(metadata)
  }
}

function requireByteNumbers(reader: VocabReader, tokens: readonly string[], types: readonly number[] | undefined): void {
  const wrong = types?.findIndex((type, token) => type === TYPE_BYTE && !/^<0x[0-9A-F]{2}>/i.test(tokens[token]!)) ?? -1
  if (wrong >= 0) reader.fail(`token ${wrong} (${JSON.stringify(tokens[wrong])}) is to be a byte, but names none`)
}

function requireByteTokens(reader: VocabReader, tokens: readonly string[]): void {
  const texts = new Set(tokens)
  for (let byte = 0; byte < 256; byte++) {
    const name = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
    const isCharacter = byte > 0 && byte < 128 && texts.has(String.fromCharCode(byte))
    if (!texts.has(name) && !isCharacter) reader.fail(`it has no token for the byte ${name}`)
  }
}

function load(reader: VocabReader, metadata: Pointer): Pointer {
  const api = llama()
  const params = { ...api.llama_model_default_params(), vocab_only: true, n_gpu_layers: 0 }
  takeGgmlError() // what was said before is not about this
  const model = api.llama_model_init_from_user(metadata, null, null, params)
  if (model === null) {
    const said = takeGgmlError()
    return reader.fail(
      /model vocabulary: (.*?) *(?:\w+: failed to load model)?$/.exec(said)?.[1] || said || 'libllama refuses it',
    )
  }
  const vocab = api.llama_model_get_vocab(model)
  const lacks = (name: string, adds: boolean, id: number) => (adds && id < 0 ? `it adds ${name} to texts, but has none` : null)
  const reason =
    lacks('BOS', api.llama_vocab_get_add_bos(vocab), api.llama_vocab_bos(vocab)) ??
    lacks('EOS', api.llama_vocab_get_add_eos(vocab), api.llama_vocab_eos(vocab))
  if (reason === null) return model
  api.llama_model_free(model)
  return reader.fail(reason)
}
