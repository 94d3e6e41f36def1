/** A small SentencePiece vocabulary, as a GGUF file and as a Hugging Face folder. */
import type { Metadata } from './sources.ts'

const PIECES = (
  '▁t he in er ▁a an on ▁the ▁w ▁s re at ▁c nd or it is en ▁b ▁▁ ▁▁▁▁ ▁and ing ▁h ▁he ell ▁hell ▁hello ello ' +
  "ou ▁w wor ld ▁world ▁n't .. ... ,▁ 12 123 éa 漢字 👍🏽 \n\n"
).split(' ')
const CHARACTERS = Array.from("▁abcdefghijklmnopqrstuvwxyzABCDEFGH.,!?'0123456789é漢字👍🏽\n")
const BYTES = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
const CONTROLS = ['<unk>', '<s>', '</s>']
const [UNKNOWN, CONTROL, NORMAL, BYTE] = [2, 3, 1, 6]

const longer = [...new Set(PIECES)].filter((piece) => !CHARACTERS.includes(piece))
export const tokens = [...CONTROLS, ...BYTES, ...longer, ...CHARACTERS]
const firstPiece = CONTROLS.length + BYTES.length

/** Scores fall from the first of `longer` on: that is the order of merges. */
export const gguf: Metadata = {
  'general.architecture': 'llama',
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.tokens': tokens,
  'tokenizer.ggml.scores': tokens.map((_, id) => (id < firstPiece ? 0 : firstPiece - id)),
  'tokenizer.ggml.token_type': tokens.map((_, id) =>
    id === 0 ? UNKNOWN : id < CONTROLS.length ? CONTROL : id < firstPiece ? BYTE : NORMAL,
  ),
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  'tokenizer.ggml.add_bos_token': true,
}

const merges = longer.flatMap((piece) => {
  const characters = Array.from(piece)
  const splits = characters.slice(1).map((_, i) => [characters.slice(0, i + 1).join(''), characters.slice(i + 1).join('')])
  return splits.filter(([left, right]) => tokens.includes(left!) && tokens.includes(right!))
})

export const folder = {
  'tokenizer.json': {
    version: '1.0',
    added_tokens: CONTROLS.map((content, id) => ({ id, content, special: true, normalized: false })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  },
  'tokenizer_config.json': { bos_token: { content: '<s>', special: true }, eos_token: '</s>', unk_token: '<unk>' },
}
