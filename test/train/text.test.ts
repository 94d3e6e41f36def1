import { writeFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { afterAll, expect, test } from 'vitest'
import { learningRate } from '../../src/train/schedule.ts'
import { readTrainText } from '../../src/train/text.ts'
import { Windows } from '../../src/train/windows.ts'
import { loadTokenizer } from '../../src/text/load.ts'
import type { Tokenizer } from '../../src/text/tokenizer.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'
import { TemporaryFolder } from '../support/reference.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

/** A token per character. */
const tokenizer = { encode: (text) => Int32Array.from(text, (c) => c.codePointAt(0)!), addBos: false, bos: null } as Tokenizer
const OPTIONS = { nTokens: 10, heldOut: 0.2 }

function textOf(name: string, bytes: string | Uint8Array, options = OPTIONS) {
  writeFileSync(folder.file(name), bytes)
  return readTrainText(folder.file(name), tokenizer, options)
}

test('windows from all over a text are held out, and every token is in one part or the other', () => {
  const text = textOf('plain', Array.from({ length: 100 }, (_, i) => String.fromCharCode(200 + i)).join(''))
  expect(text.heldOut).toHaveLength(2)
  expect(text.heldOut.map((window) => window[0]! - 200)).toEqual([19, 69])
  for (const window of text.heldOut) expect([...window]).toEqual(Array.from({ length: 11 }, (_, i) => window[0]! + i))
  const all = [...text.train, ...text.heldOut.flatMap((window) => [...window])].toSorted((a, b) => a - b)
  expect(all).toEqual(Array.from({ length: 100 }, (_, i) => 200 + i))
  expect([...text.train]).toEqual([...text.train].toSorted((a, b) => a - b))
})

test('at least a window is held out, or nothing', () => {
  expect(textOf('few', 'x'.repeat(30)).heldOut).toHaveLength(1)
  expect(textOf('none', 'x'.repeat(11), { ...OPTIONS, heldOut: 0 })).toMatchObject({ heldOut: [], train: { length: 11 } })
})

test('a gzipped text is the same text', () => {
  expect(textOf('zipped', gzipSync('hello '.repeat(20)))).toMatchObject({ hash: textOf('whole', 'hello '.repeat(20)).hash })
})

test('tokens of the chat template are read as text, or as tokens if asked for', () => {
  using source = openGguf(BUNDLED_GGUF)
  using bundled = loadTokenizer(source)
  writeFileSync(folder.file('chat'), '<|user|>Hello, how are you today?<|end|>')
  const read = (parseSpecial: boolean) => readTrainText(folder.file('chat'), bundled, { nTokens: 4, heldOut: 0, parseSpecial })
  const [user] = bundled.encode('<|user|>', { addSpecial: false, parseSpecial: true })
  expect(read(true).train[0]).toBe(user)
  expect(read(false).train).not.toContain(user)
  expect(read(false).hash).not.toBe(read(true).hash)
})

test.each<[string, string | Uint8Array, RegExp]>([
  ['empty', '', /nothing in it/],
  ['blank', ' \n\n ', /nothing in it/],
  ['short', 'only a few words here', /it has 21 tokens, of which 11 are held out, and a window needs 11/],
  ['binary', Uint8Array.of(71, 71, 85, 70, 0, 3), /not text/],
  ['latin-1', Uint8Array.of(102, 252, 114), /not UTF-8/],
  ['damaged', gzipSync('hello').subarray(0, 12), /cannot be unpacked/],
])('%s data is refused', (name, bytes, message) => {
  expect(() => textOf(name, bytes)).toThrow(message)
})

test('a share of all of the text cannot be held out', () => {
  expect(() => textOf('all', 'x'.repeat(100), { ...OPTIONS, heldOut: 1 })).toThrow(/heldOut must be/)
})

test('a text that is not there is a file_error', () => {
  expect(() => readTrainText(folder.file('missing'), tokenizer, OPTIONS)).toThrow(/ENOENT/)
})

test('a pass over the text takes every window once, in an order of its own', () => {
  const tokens = Int32Array.from({ length: 105 }, (_, i) => i)
  const windows = new Windows(tokens, { nTokens: 10, seed: 7, bos: null })
  const pass = (p: number) => Array.from({ length: windows.nWindows }, (_, i) => windows.at(p * windows.nWindows + i))
  expect(windows.nWindows).toBe(9)
  for (const p of [0, 1]) {
    const starts = pass(p).map((window) => window[0]!)
    const sorted = starts.toSorted((a, b) => a - b)
    expect(sorted.map((start) => start - sorted[0]!)).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80])
    expect(starts).not.toEqual(sorted)
    for (const window of pass(p)) expect([...window]).toEqual(Array.from({ length: 11 }, (_, i) => window[0]! + i))
  }
  expect(pass(0)).not.toEqual(pass(1))
  expect(new Windows(tokens, { nTokens: 10, seed: 7, bos: null }).at(12)).toEqual(windows.at(12))
  expect(new Windows(tokens, { nTokens: 10, seed: 8, bos: null }).at(12)).not.toEqual(windows.at(12))
})

test('a text of one window is enough, and BOS stands first where a model wants it', () => {
  const windows = new Windows(Int32Array.of(5, 6, 7), { nTokens: 2, seed: 0, bos: 1 })
  expect([...windows.at(0)]).toEqual([1, 5, 6])
  expect([...windows.at(9)]).toEqual([1, 5, 6])
})

test('the learning rate rises in a line and falls in half a cosine', () => {
  const schedule = { steps: 11, warmup: 2, rate: 1, finalRate: 0.1 }
  const rates = Array.from({ length: 11 }, (_, step) => learningRate(step, schedule))
  expect(rates.slice(0, 3)).toEqual([0.5, 1, 1])
  expect(rates[6]).toBeCloseTo(0.55, 10)
  expect(rates[10]).toBeCloseTo(0.1, 10)
})
