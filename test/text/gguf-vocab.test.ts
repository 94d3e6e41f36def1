import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { GgufTokenizer } from '../../src/text/gguf-tokenizer.ts'
import { bundled, GGUF, type Metadata, sourceOf } from './sources.ts'

const good = bundled()
const tokens = good['tokenizer.ggml.tokens'] as string[]
const types = good['tokenizer.ggml.token_type'] as number[]
const merges = good['tokenizer.ggml.merges'] as string[]
const key = (name: string) => `tokenizer.ggml.${name}`

const DAMAGED: readonly (readonly [what: string, changes: Metadata, reason: RegExp])[] = [
  ['no kind', { [key('model')]: undefined }, /has none/],
  ['a kind that is no text', { [key('model')]: 7 }, /'tokenizer.ggml.model' is not a text/],
  ['no vocabulary', { [key('model')]: 'no_vocab' }, /its kind is 'no_vocab'/],
  ['a kind that libllama asserts on', { [key('model')]: 'bert' }, /its kind is 'bert'/],
  ['an unknown pre-tokenizer', { [key('pre')]: 'qwen7' }, /^unknown pre-tokenizer type: 'qwen7'$/],
  ['a pre-tokenizer that asserts on two spaces', { [key('pre')]: 'whitespace' }, /'whitespace' is not supported/],
  ['a pre-tokenizer that overflows the stack', { [key('pre')]: 'exaone-moe' }, /'exaone-moe' is not supported/],
  ['no tokens', { [key('tokens')]: undefined }, /no list of tokens/],
  ['an empty list of tokens', { [key('tokens')]: [] }, /is empty/],
  ['a token that is no text', { [key('tokens')]: tokens.with(5, 5 as never) }, /not a list of texts/],
  ['tokens that are no list', { [key('tokens')]: 'abc' }, /is not a list/],
  ['two tokens with one text', { [key('tokens')]: tokens.with(7, 'a') }, /tokens 7 and 64 have the same text "a"/],
  ['two tokens that C reads as one', { [key('tokens')]: tokens.with(7, 'a\0b') }, /tokens 7 and 64 have the same text/],
  [
    'a token named like an empty one',
    { [key('tokens')]: tokens.with(7, '').with(8, '[EMPTY_7]') },
    /tokens 7 and 8 have the same text/,
  ],
  ['too few types', { [key('token_type')]: types.slice(1) }, /has 4095 entries for 4096 tokens/],
  ['a type that does not exist', { [key('token_type')]: types.with(9, 7) }, /of token 9 is 7/],
  ['types that are texts', { [key('token_type')]: tokens }, /of token 0 is "!"/],
  ['too many scores', { [key('scores')]: [...types, 0] }, /has 4097 entries/],
  ['a score that is no number', { [key('scores')]: types.with(3, Number.NaN) }, /of token 3 is/],
  ['a merge of one part', { [key('merges')]: merges.with(2, 'ab') }, /merge 2 \("ab"\) is not two parts/],
  ['merges that are numbers', { [key('merges')]: types }, /not a list of texts/],
  ['an end token out of range', { [key('eos_token_id')]: 4096 }, /'tokenizer.ggml.eos_token_id' is 4096, but there are 4096/],
  ['a begin token that is a text', { [key('bos_token_id')]: '1' }, /'tokenizer.ggml.bos_token_id' is not a token/],
  ['half a padding token', { [key('padding_token_id')]: 1.5 }, /'tokenizer.ggml.padding_token_id' is not a token/],
  ['a flag that is a number', { [key('add_bos_token')]: 1 }, /'tokenizer.ggml.add_bos_token' is not true or false/],
  ['a name that has rules of its own', { 'general.name': 'my Phi-3' }, /at/],
  ['SentencePiece without bytes', { [key('model')]: 'llama' }, /no token for the byte <0x00>/],
  ['a byte token without a number', { [key('token_type')]: types.with(64, 6) }, /token 64 \("a"\) is to be a byte/],
  [
    'BOS to be added, but none',
    { [key('pre')]: 'chatglm-bpe', [key('bos_token_id')]: undefined, [key('add_bos_token')]: true },
    /it adds BOS to texts, but has none/,
  ],
]

test.each(DAMAGED)('%s is an error that says so', (_, changes, reason) => {
  expect(() => new GgufTokenizer(sourceOf('gguf', { ...good, ...changes }, 'broken.gguf'))).toThrow(
    expect.objectContaining({
      code: 'tokenizer_invalid',
      fields: { path: 'broken.gguf', reason: expect.stringMatching(reason) as string },
    }),
  )
})

test.each([
  ['a padding token out of range', { [key('padding_token_id')]: 4096 }],
  ['an end of message of -1', { [key('eom_token_id')]: -1 }],
  ['an end of message of -1 without its sign', { [key('eom_token_id')]: 0xffffffff }],
  ['no merges', { [key('merges')]: [] }],
  ['no types', { [key('token_type')]: undefined }],
  ['no name', { 'general.name': undefined }],
])('%s is no error', (_, changes) => {
  using tokenizer = new GgufTokenizer(sourceOf('gguf', { ...good, ...changes }))
  expect(tokenizer.decode(tokenizer.encode('Hello, world'))).toBe('Hello, world')
})

test('bit flips in the metadata never end the process', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvasir-flips-'))
  try {
    const copy = join(folder, 'copy.gguf')
    copyFileSync(GGUF, copy)
    const nBytes = readFileSync(copy).indexOf('token_embd.weight')
    expect(nBytes).toBeGreaterThan(100_000)
    // The first bytes hold keys and numbers, most of the rest is texts.
    for (const [bytes, flips] of [
      [nBytes, 600],
      [700, 600],
    ]) {
      const child = fileURLToPath(new URL('flip-child.ts', import.meta.url))
      const run = spawnSync(process.execPath, ['--import', 'tsx', child, copy, `${bytes}`, `${flips}`, '1'], { encoding: 'utf8' })
      expect({ status: run.status, signal: run.signal, stderr: run.stderr }).toEqual({ status: 0, signal: null, stderr: '' })
      const outcomes = JSON.parse(run.stdout) as Record<string, number>
      expect(Object.values(outcomes).reduce((sum, n) => sum + n)).toBe(flips)
      expect(outcomes).toMatchObject({ works: expect.any(Number) as number, tokenizer_invalid: expect.any(Number) as number })
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})
