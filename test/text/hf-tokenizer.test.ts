import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { random } from '../../src/core/random.ts'
import { HfTokenizer } from '../../src/text/hf-tokenizer.ts'
import { loadTokenizer } from '../../src/text/load.ts'
import { openWeights } from '../../src/weights/open.ts'
import { FOLDER, GGUF, type Metadata, writeFolder } from './sources.ts'
import { texts } from './strings.ts'

using ggufSource = openWeights(GGUF)
using hfSource = openWeights(FOLDER)
const gguf = loadTokenizer(ggufSource)
const hf = loadTokenizer(hfSource)
const folder = mkdtempSync(join(tmpdir(), 'kvasir-hf-'))
afterAll(() => {
  gguf[Symbol.dispose]()
  rmSync(folder, { recursive: true })
})

const read = (name: string) => JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as Record<string, unknown>
const tokenizerJson = read('tokenizer.json')
const configJson = read('tokenizer_config.json')

test('the format decides which tokenizer it is', () => {
  expect(hfSource.format).toBe('huggingface')
  expect(hf).toBeInstanceOf(HfTokenizer)
  expect(gguf).not.toBeInstanceOf(HfTokenizer)
})

test('10,000 texts have the ids of the GGUF form, and come back as they were', () => {
  const wrong: string[] = []
  for (const text of texts(10_000, 11)) {
    for (const parseSpecial of [false, true]) {
      const ids = hf.encode(text, { parseSpecial })
      const isSame = ids.join() === gguf.encode(text, { parseSpecial }).join()
      if (!isSame || hf.decode(ids, true) !== Buffer.from(text).toString()) wrong.push(text)
    }
  }
  expect(wrong).toEqual([])
})

test('every token has the bytes, text and meaning of the GGUF form', () => {
  expect([hf.nVocab, hf.bos, hf.eos, hf.addBos]).toEqual([gguf.nVocab, gguf.bos, gguf.eos, gguf.addBos])
  for (let token = 0; token < hf.nVocab; token++) {
    for (const special of [false, true]) expect([...hf.piece(token, special)]).toEqual([...gguf.piece(token, special)])
    expect(hf.text(token)).toBe(gguf.text(token))
    expect(hf.isEog(token)).toBe(gguf.isEog(token))
  }
})

test.each([-1, 4096, 0.5])('%d is no token', (token) => {
  expect(() => hf.piece(token)).toThrow(expect.objectContaining({ code: 'invalid_request' }))
  expect(() => hf.decode([token])).toThrow(KvasirError)
})

type Files = Readonly<Record<string, unknown>>

function load(files: Files, config: Metadata = {}): HfTokenizer {
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
    rmSync(join(folder, name), { force: true })
  return new HfTokenizer(writeFolder(folder, files, config))
}

describe('ends of a generation', () => {
  const ends = (tokenizer: HfTokenizer) => [...Array(tokenizer.nVocab).keys()].filter((token) => tokenizer.isEog(token))
  const byName = [4091, 4095]

  test.each<[string, Files, Metadata, number[], number | null]>([
    ['names that are known', {}, {}, byName, 4095],
    ['one in generation_config.json', { 'generation_config.json': { eos_token_id: 7 } }, {}, [7, ...byName], 4095],
    ['several there', { 'generation_config.json': { eos_token_id: [7, 9] } }, {}, [7, 9, ...byName], 4095],
    ['several in config.json', {}, { eos_token_id: [8, 4094] }, [8, 4091, 4094, 4095], 4095],
    ['config.json alone', { 'tokenizer_config.json': {} }, { eos_token_id: [8, 9] }, [8, 9, ...byName], 8],
    ['none of both', { 'tokenizer_config.json': '{}' }, {}, byName, null],
  ])('by %s', (_, files, config, expected, eos) => {
    const tokenizer = load({ 'tokenizer.json': tokenizerJson, 'tokenizer_config.json': configJson, ...files }, config)
    expect(ends(tokenizer)).toEqual(expected)
    expect(tokenizer.eos).toBe(eos)
  })

  test('a control token by name alone is one, whatever the file says', () => {
    const added = (tokenizerJson.added_tokens as { special: boolean }[]).map((token) => ({ ...token, special: false }))
    const tokenizer = load({ 'tokenizer.json': { ...tokenizerJson, added_tokens: added } })
    expect(tokenizer.isControl(4095)).toBe(true)
    expect(tokenizer.isControl(4093)).toBe(false)
    expect([...tokenizer.encode('<|user|>')]).toEqual([4093])
    expect(tokenizer.encode('<|end|>').length).toBeGreaterThan(1)
    expect([...tokenizer.encode('<|end|>', { parseSpecial: true })]).toEqual([4095])
  })
})

test('rows of the vocabulary beyond the tokens are tokens without text', () => {
  const tokenizer = load({ 'tokenizer.json': tokenizerJson }, { vocab_size: 5000 })
  expect(tokenizer.nVocab).toBe(5000)
  expect(tokenizer.piece(4999, true)).toHaveLength(0)
  expect(tokenizer.text(4999)).toBe('')
})

const model = tokenizerJson.model as Record<string, unknown>
const withModel = (changes: Record<string, unknown>) => ({ ...tokenizerJson, model: { ...model, ...changes } })

describe('a damaged folder', () => {
  test.each<[string, Files, RegExp]>([
    ['without tokenizer.json', {}, /^tokenizer.json is missing$/],
    ['with an empty one', { 'tokenizer.json': '' }, /^tokenizer.json is not JSON/],
    ['with half of one', { 'tokenizer.json': JSON.stringify(tokenizerJson).slice(0, 5000) }, /^tokenizer.json is not JSON/],
    ['with a list', { 'tokenizer.json': [] }, /^tokenizer.json: /],
    ['without a model', { 'tokenizer.json': { ...tokenizerJson, model: undefined } }, /'model' /],
    ['with an unknown model', { 'tokenizer.json': withModel({ type: 'WordPiece' }) }, /'model.type' /],
    ['without a vocabulary', { 'tokenizer.json': withModel({ vocab: undefined }) }, /'model.vocab' is not a table of ids/],
    ['with a wrong id', { 'tokenizer.json': withModel({ vocab: { a: -1 } }) }, /'model.vocab' is not a table of ids/],
    ['with a huge id', { 'tokenizer.json': withModel({ vocab: { a: 2 ** 40 } }) }, /'model.vocab' is not a table of ids/],
    ['with ids that are texts', { 'tokenizer.json': withModel({ vocab: { a: '1' } }) }, /'model.vocab' is not a table of ids/],
    ['without merges', { 'tokenizer.json': withModel({ merges: undefined }) }, /'model.merges' is not a list of pairs/],
    ['with a merge of one part', { 'tokenizer.json': withModel({ merges: ['ab'] }) }, /'model.merges' is not a list of pairs/],
    ['with word endings', { 'tokenizer.json': withModel({ end_of_word_suffix: '</w>' }) }, /'model.end_of_word_suffix'/],
    [
      'with an added token without text',
      { 'tokenizer.json': { ...tokenizerJson, added_tokens: [{ id: 1, content: '' }] } },
      /'added_tokens.0.content'/,
    ],
    [
      'with an unknown pre-tokenizer',
      { 'tokenizer.json': { ...tokenizerJson, pre_tokenizer: { type: 'Magic' } } },
      /Unknown PreTokenizer type: Magic/,
    ],
    [
      'with a pre-tokenizer that would never end',
      {
        'tokenizer.json': {
          ...tokenizerJson,
          pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'FixedLength', length: 0 }] },
        },
      },
      /cuts texts into empty parts/,
    ],
    [
      'with a pattern that is none',
      { 'tokenizer.json': { ...tokenizerJson, pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } } },
      /^tokenizer.json: /,
    ],
    [
      'with a damaged configuration',
      { 'tokenizer.json': tokenizerJson, 'tokenizer_config.json': '{' },
      /^tokenizer_config.json is not JSON/,
    ],
    [
      'with a wrong one',
      { 'tokenizer.json': tokenizerJson, 'tokenizer_config.json': { add_bos_token: 'yes' } },
      /^tokenizer_config.json: 'add_bos_token'/,
    ],
    [
      'with a wrong end token',
      { 'tokenizer.json': tokenizerJson, 'generation_config.json': { eos_token_id: 'x' } },
      /^generation_config.json: 'eos_token_id'/,
    ],
  ])('%s is an error that says so', (_, files, reason) => {
    expect(() => load(files)).toThrow(
      expect.objectContaining({
        code: 'tokenizer_invalid',
        fields: { path: folder, reason: expect.stringMatching(reason) as string },
      }),
    )
  })

  test('bit flips in tokenizer.json give a tokenizer or an error, nothing else', () => {
    const bytes = readFileSync(join(FOLDER, 'tokenizer.json'))
    const next = random(5)
    const outcomes = new Set<string>()
    for (let i = 0; i < 150; i++) {
      const copy = Buffer.from(bytes)
      // The frame is the first 2,000 bytes; the rest is the vocabulary.
      const at = Math.floor(next() * (i % 2 ? 2000 : bytes.length))
      copy[at] = copy[at]! ^ (1 << Math.floor(next() * 8))
      try {
        const tokenizer = load({ 'tokenizer.json': copy.toString('utf8') })
        tokenizer.decode(tokenizer.encode('Hello, wörld\n'))
        outcomes.add('works')
      } catch (error) {
        outcomes.add(error instanceof KvasirError ? error.code : String(error))
      }
    }
    expect(outcomes).toEqual(new Set(['works', 'tokenizer_invalid']))
  })
})
