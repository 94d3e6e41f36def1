import { afterAll, describe, expect, test } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { llama } from '../../src/ggml/libllama.ts'
import { GgufTokenizer } from '../../src/text/gguf-tokenizer.ts'
import { bundled, DirectVocab, GGUF, sourceOf } from './sources.ts'
import { texts } from './strings.ts'

const tokenizer = new GgufTokenizer(sourceOf('gguf', bundled()))
const direct = new DirectVocab(GGUF)
afterAll(() => {
  tokenizer[Symbol.dispose]()
  direct[Symbol.dispose]()
})

test('10,000 texts have the ids of libllama, and come back as they were', () => {
  const wrong: string[] = []
  for (const text of texts(10_000, 1)) {
    for (const parseSpecial of [false, true]) {
      const ids = tokenizer.encode(text, { parseSpecial })
      const isSame = ids.join() === direct.tokenize(text, true, parseSpecial).join()
      if (!isSame || tokenizer.decode(ids, true) !== Buffer.from(text).toString()) wrong.push(text)
    }
  }
  expect(wrong).toEqual([])
})

test('every token has the text, attributes and meaning that libllama reads from the file itself', () => {
  const api = llama()
  expect(tokenizer.nVocab).toBe(api.llama_vocab_n_tokens(direct.vocab))
  expect([tokenizer.bos, tokenizer.eos]).toEqual([api.llama_vocab_bos(direct.vocab), api.llama_vocab_eos(direct.vocab)])
  expect(tokenizer.addBos).toBe(api.llama_vocab_get_add_bos(direct.vocab))
  for (let token = 0; token < tokenizer.nVocab; token++) {
    expect(tokenizer.text(token)).toBe(api.llama_vocab_get_text(direct.vocab, token))
    expect(tokenizer.isEog(token)).toBe(api.llama_vocab_is_eog(direct.vocab, token))
    expect(tokenizer.isControl(token)).toBe(api.llama_vocab_is_control(direct.vocab, token))
  }
})

test.each([
  ['', ''],
  ['\0', '\0'],
  ['a\0b', 'a\0b'],
  ['\ud800', '\ufffd'],
  ['a\udc00b', 'a\ufffdb'],
  ['\u{feff}a', '\u{feff}a'],
  ["a ' b , c 's don't !", "a ' b , c 's don't !"],
])('%j is read as %j', (text, expected) => {
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(expected)
})

test('control tokens have bytes only when asked for', () => {
  const [end] = tokenizer.encode('<|end|>', { parseSpecial: true })
  expect(end).toBe(tokenizer.eos)
  expect(tokenizer.piece(end!)).toHaveLength(0)
  expect(Buffer.from(tokenizer.piece(end!, true)).toString()).toBe('<|end|>')
  expect(tokenizer.decode([end!])).toBe('')
})

test('a token may be half a character', () => {
  const ids = tokenizer.encode('ö', { addSpecial: false })
  expect(Array.from(ids, (id) => [...tokenizer.piece(id)])).toEqual([[0xc3], [0xb6]])
})

test('a piece may be longer than expected', () => {
  const metadata = bundled()
  const long = 'x'.repeat(500)
  const tokens = (metadata['tokenizer.ggml.tokens'] as string[]).with(300, long)
  using other = new GgufTokenizer(sourceOf('gguf', { ...metadata, 'tokenizer.ggml.tokens': tokens }))
  expect(Buffer.from(other.piece(300)).toString()).toBe(long)
})

describe('what is no token', () => {
  test.each([-1, 4096, 1.5, Number.NaN, 2 ** 32])('%d is refused', (token) => {
    expect(() => tokenizer.piece(token)).toThrow(expect.objectContaining({ code: 'invalid_request' }))
    expect(() => tokenizer.text(token)).toThrow(KvasirError)
    expect(() => tokenizer.decode([token])).toThrow(KvasirError)
    expect(tokenizer.isEog(token)).toBe(false)
  })
})

test('BOS and EOS are added as the metadata says', () => {
  const metadata = bundled({ 'tokenizer.ggml.add_bos_token': true, 'tokenizer.ggml.add_eos_token': true })
  using other = new GgufTokenizer(sourceOf('gguf', metadata))
  const plain = other.encode('hello', { addSpecial: false })
  expect(other.addBos).toBe(true)
  expect([...other.encode('hello')]).toEqual([other.bos, ...plain, other.eos])
  expect([...other.encode('')]).toEqual([other.bos, other.eos])
  const long = other.encode(`${'<|end|> '.repeat(3000)}`, { parseSpecial: true })
  expect([long[0], long.at(-1), long.length]).toEqual([other.bos, other.eos, 6002])
})

test('a closed tokenizer says so', () => {
  const closed = new GgufTokenizer(sourceOf('gguf', bundled()))
  closed[Symbol.dispose]()
  closed[Symbol.dispose]()
  for (const use of [() => closed.encode('a'), () => closed.piece(0), () => closed.text(0), () => closed.isEog(0)])
    expect(use).toThrow(expect.objectContaining({ code: 'closed' }))
})
