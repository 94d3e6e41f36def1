import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Detokenizer } from '../../src/text/detokenizer.ts'

/** `bytes` in pieces whose lengths are `lengths`, again and again. */
function* pieces(bytes: Uint8Array, lengths: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const length = lengths[i % lengths.length] ?? 1
    yield bytes.subarray(at, at + length)
    at += length
  }
}

const lengths = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1 })

test('any bytes in any pieces give the text of the whole', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), lengths, (bytes, cut) => {
      const detokenizer = new Detokenizer()
      const text = [...pieces(bytes, cut)].map((piece) => detokenizer.push(piece)).join('') + detokenizer.flush()
      expect(text).toBe(Buffer.from(bytes).toString('utf8'))
    }),
    { seed: 1, numRuns: 2000 },
  )
})

test('text in any pieces comes back in whole characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 20 }), lengths, (text, cut) => {
      const detokenizer = new Detokenizer()
      const parts = [...pieces(Buffer.from(text), cut)].map((piece) => detokenizer.push(piece))
      expect(parts.join('')).toBe(text)
      expect(parts.join('|')).not.toMatch(/[\ud800-\udbff]\|/)
      expect(detokenizer.flush()).toBe('')
    }),
    { seed: 1, numRuns: 1000 },
  )
})

test.each([
  ['half a character waits', [[0xe2, 0x82]], '', '\ufffd'],
  [
    'and is completed',
    [
      [0xe2, 0x82],
      [0xac, 0x21],
    ],
    '€!',
    '',
  ],
  ['a wrong byte shows at once', [[0xff, 0x61]], '\ufffda', ''],
  ['a byte order mark is text', [[0xef, 0xbb], [0xbf]], '\ufeff', ''],
  ['nothing is nothing', [[]], '', ''],
])('%s', (_, bytes, pushed, flushed) => {
  const detokenizer = new Detokenizer()
  expect(bytes.map((piece) => detokenizer.push(Uint8Array.from(piece))).join('')).toBe(pushed)
  expect(detokenizer.flush()).toBe(flushed)
  expect(detokenizer.flush()).toBe('')
})
