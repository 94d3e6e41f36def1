import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { setLogSink } from '../../src/core/log.ts'
import { chatTemplateOf, encodeChat } from '../../src/text/chat-encoding.ts'
import { GgufTokenizer } from '../../src/text/gguf-tokenizer.ts'
import { loadTokenizer } from '../../src/text/load.ts'
import { openWeights } from '../../src/weights/open.ts'
import { bundled, FOLDER, GGUF, sourceOf, writeFolder } from './sources.ts'

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

const MESSAGES = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Hi' },
]
const SAID = '<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>'

test.each([
  ['GGUF file', GGUF],
  ['Hugging Face folder', FOLDER],
])('the bundled model has its template in the %s', (_, path) => {
  using source = openWeights(path)
  using tokenizer = loadTokenizer(source)
  const template = chatTemplateOf(source, tokenizer)
  expect(template.source).toContain('{% for m in messages %}')
  expect(template.render(MESSAGES)).toBe(SAID)
  const ids = encodeChat(tokenizer, SAID)
  expect([ids[0], ids.at(-1)]).toEqual([4092, 4094])
  expect(ids.filter((id) => id >= 4091)).toHaveLength(5)
})

describe('a Hugging Face folder', () => {
  using _source = openWeights(FOLDER)
  const tokenizer = loadTokenizer(_source)
  const named = [
    { name: 'tool_use', template: 'tool' },
    { name: 'default', template: 'default' },
  ]

  test.each([
    ['a text in tokenizer_config.json', { 'tokenizer_config.json': { chat_template: 'text' } }, 'text'],
    ['the one named default', { 'tokenizer_config.json': { chat_template: named } }, 'default'],
    ['the first, if none is', { 'tokenizer_config.json': { chat_template: named.slice(0, 1) } }, 'tool'],
    [
      'a file, before anything else',
      { 'chat_template.jinja': 'file', 'tokenizer_config.json': { chat_template: 'text' } },
      'file',
    ],
    ['a file alone', { 'chat_template.jinja': 'file' }, 'file'],
    ['nothing', {}, null],
    ['null', { 'tokenizer_config.json': { chat_template: null } }, null],
    ['an empty text', { 'tokenizer_config.json': { chat_template: '' } }, null],
    ['an empty list', { 'tokenizer_config.json': { chat_template: [] } }, null],
  ])('may have %s', (_, files, expected) => {
    const folder = mkdtempSync(join(tmpdir(), 'kvasir-template-'))
    folders.push(folder)
    expect(chatTemplateOf(writeFolder(folder, files), tokenizer).source).toBe(expected)
  })
})

describe('a GGUF file', () => {
  test.each([
    ['a text', 'text', 'text'],
    ['nothing', undefined, null],
    ['an empty text', '', null],
    ['a number', 5, null],
  ])('may have %s', (_, template, expected) => {
    const source = sourceOf('gguf', bundled({ 'tokenizer.chat_template': template }))
    using tokenizer = new GgufTokenizer(source)
    expect(chatTemplateOf(source, tokenizer).source).toBe(expected)
  })

  test('whose vocabulary has the tokens of ChatML falls back to it', () => {
    const metadata = bundled({ 'tokenizer.chat_template': undefined })
    const tokens = (metadata['tokenizer.ggml.tokens'] as string[]).with(4092, '<|im_start|>').with(4095, '<|im_end|>')
    const source = sourceOf('gguf', { ...metadata, 'tokenizer.ggml.tokens': tokens })
    using tokenizer = new GgufTokenizer(source)
    const before = setLogSink(() => {})
    expect(chatTemplateOf(source, tokenizer).render(MESSAGES.slice(1))).toContain('<|im_start|>user\nHi<|im_end|>')
    setLogSink(before)
  })
})

describe('BOS stands in front of a chat', () => {
  const bos = 4091
  test.each([
    ['once, if the template wrote it', true, '<|endoftext|><|user|>', [bos, 4093]],
    ['once, if the template left it out', true, '<|user|>', [bos, 4093]],
    ['twice, if the template wrote it twice', true, '<|endoftext|><|endoftext|>', [bos, bos]],
    ['alone, if there is nothing else', true, '', [bos]],
    ['not at all, if the vocabulary does not add it', false, '<|user|>', [4093]],
    ['as the template wrote it, if the vocabulary does not add it', false, '<|endoftext|><|user|>', [bos, 4093]],
  ])('%s', (_, addBos, text, expected) => {
    const metadata = bundled({ 'tokenizer.ggml.add_bos_token': addBos, 'tokenizer.ggml.add_eos_token': true })
    using tokenizer = new GgufTokenizer(sourceOf('gguf', metadata))
    expect([...encodeChat(tokenizer, text)]).toEqual(expected)
  })

  test('of a long one too', () => {
    using tokenizer = new GgufTokenizer(sourceOf('gguf', bundled({ 'tokenizer.ggml.add_bos_token': true })))
    const text = readFileSync(new URL('../../models/text/heldout.txt', import.meta.url), 'utf8')
    const ids = encodeChat(tokenizer, text)
    expect(ids[0]).toBe(bos)
    expect(tokenizer.decode(ids)).toBe(text)
  })
})
