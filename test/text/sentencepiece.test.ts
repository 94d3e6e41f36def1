import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { GgufTokenizer } from '../../src/text/gguf-tokenizer.ts'
import { HfTokenizer } from '../../src/text/hf-tokenizer.ts'
import type { GgufValue, ScalarKind } from '../../src/weights/gguf-values.ts'
import { encodeGgufHeader } from '../../src/weights/gguf-writer.ts'
import { folder as files, gguf as metadata, tokens } from './sentencepiece.ts'
import { DirectVocab, sourceOf, writeFolder } from './sources.ts'
import { texts } from './strings.ts'

const KINDS: Record<string, ScalarKind> = { tokens: 'str', scores: 'f32', token_type: 'i32', add_bos_token: 'bool' }

const path = mkdtempSync(join(tmpdir(), 'kvasir-spm-'))
const file = join(path, 'vocabulary.gguf')
const values = Object.entries(metadata).map(([key, value]) => {
  const kind = KINDS[key.split('.').at(-1)!] ?? (typeof value === 'string' ? 'str' : 'u32')
  return [key, { kind: Array.isArray(value) ? `${kind}[]` : kind, value } as GgufValue] as const
})
writeFileSync(file, encodeGgufHeader({ metadata: values, tensors: [] }))

const gguf = new GgufTokenizer(sourceOf('gguf', metadata))
const hf = new HfTokenizer(writeFolder(path, files))
const direct = new DirectVocab(file)
afterAll(() => {
  gguf[Symbol.dispose]()
  direct[Symbol.dispose]()
  rmSync(path, { recursive: true })
})

test('3,000 texts have the same ids in libllama, from GGUF and from tokenizer.json', () => {
  const wrong: string[] = []
  for (const text of texts(3000, 2)) {
    for (const parseSpecial of [false, true]) {
      const ids = direct.tokenize(text, true, parseSpecial).join()
      const isSame = [gguf, hf].every((tokenizer) => tokenizer.encode(text, { parseSpecial }).join() === ids)
      if (!isSame) wrong.push(text)
    }
  }
  expect(wrong).toEqual([])
})

test('texts come back without the space that was put in front', () => {
  for (const text of [...texts(1000, 4), '', ' ', '  a', ' hello', '\u{e000}']) {
    const expected = Buffer.from(text).toString()
    for (const tokenizer of [gguf, hf]) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(expected)
      expect(tokenizer.decode(tokenizer.encode(text, { addSpecial: false }), true)).toBe(expected)
    }
  }
  for (const tokenizer of [gguf, hf]) expect(tokenizer.decode(tokenizer.encode('hello'), true)).toBe('<s>hello')
})

test('every token has the same bytes in both forms', () => {
  for (const token of tokens.keys()) {
    for (const special of [false, true]) expect([...hf.piece(token, special)]).toEqual([...gguf.piece(token, special)])
    expect(hf.text(token)).toBe(gguf.text(token))
    expect(hf.isEog(token)).toBe(gguf.isEog(token))
    expect(hf.isControl(token)).toBe(gguf.isControl(token))
  }
})

test('a byte token is its byte, and ▁ is a space', () => {
  const idOf = (text: string) => tokens.indexOf(text)
  for (const tokenizer of [gguf, hf]) {
    expect([...tokenizer.piece(idOf('<0xC3>'))]).toEqual([0xc3])
    expect(Buffer.from(tokenizer.piece(idOf('▁the'))).toString()).toBe(' the')
    expect([...tokenizer.encode('ö', { addSpecial: false })]).toEqual([idOf('▁'), idOf('<0xC3>'), idOf('<0xB6>')])
    expect([tokenizer.bos, tokenizer.eos, tokenizer.addBos]).toEqual([1, 2, true])
  }
})

test.each([
  ['neither', {}, {}, true, [1], []],
  ['add_bos_token false', { add_bos_token: false }, {}, false, [], []],
  ['add_eos_token true', { add_eos_token: true }, {}, true, [1], [2]],
  ['no post-processor', {}, { post_processor: null }, false, [], []],
  ['no post-processor, but add_bos_token', { add_bos_token: true }, { post_processor: null }, true, [1], []],
])('with %s, special tokens stand around a text', (_, config, changes, addBos, before, after) => {
  const folder = mkdtempSync(join(tmpdir(), 'kvasir-hf-'))
  try {
    const changed = {
      'tokenizer.json': { ...files['tokenizer.json'], ...changes },
      'tokenizer_config.json': { ...files['tokenizer_config.json'], ...config },
    }
    const tokenizer = new HfTokenizer(writeFolder(folder, changed))
    const plain = [...tokenizer.encode('hello', { addSpecial: false })]
    expect([...tokenizer.encode('hello')]).toEqual([...before, ...plain, ...after])
    expect(tokenizer.addBos).toBe(addBos)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
