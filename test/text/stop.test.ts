import fc from 'fast-check'
import { expect, test } from 'vitest'
import { StopMatcher } from '../../src/text/stop.ts'

function run(stops: readonly string[], pieces: readonly string[]): { text: string; stopped: string | null } {
  const matcher = new StopMatcher(stops)
  let text = ''
  let stopped: string | null = null
  for (const piece of pieces) {
    const result = matcher.push(piece)
    text += result.text
    stopped = result.stopped
  }
  return { text: text + matcher.flush(), stopped }
}

/** Few letters, so that matches and almost-matches are frequent. */
const letters = (maxLength: number) => fc.string({ unit: fc.constantFrom('a', 'b', '€', '😀'), maxLength })
const stopStrings = fc.array(letters(4), { maxLength: 4 })

test('any split of a text ends at the same place as the whole', () => {
  fc.assert(
    fc.property(stopStrings, fc.array(letters(6), { maxLength: 8 }), (stops, pieces) => {
      expect(run(stops, pieces)).toEqual(run(stops, [pieces.join('')]))
    }),
    { seed: 1, numRuns: 5000 },
  )
})

test('the text ends before the stop string that is complete first', () => {
  fc.assert(
    fc.property(stopStrings, letters(24), (stops, text) => {
      const ends = [...Array(text.length + 1).keys()]
      const end = ends.find((i) => stops.some((stop) => stop !== '' && text.slice(0, i).endsWith(stop)))
      const { text: before, stopped } = run(stops, [text])
      expect(before + (stopped ?? '')).toBe(text.slice(0, end))
      expect(stopped === null).toBe(end === undefined)
    }),
    { seed: 1, numRuns: 5000 },
  )
})

test('what cannot become a stop string is not held back', () => {
  fc.assert(
    fc.property(stopStrings, fc.array(letters(6), { maxLength: 8 }), (stops, pieces) => {
      const matcher = new StopMatcher(stops)
      let given = ''
      let taken = ''
      for (const piece of pieces) {
        taken += piece
        const { text, stopped } = matcher.push(piece)
        given += text
        if (stopped !== null) return
        const held = taken.slice(given.length)
        expect(held === '' || stops.some((stop) => stop.startsWith(held) && stop !== held)).toBe(true)
      }
    }),
    { seed: 1, numRuns: 3000 },
  )
})

test.each([
  [['</s>'], ['a<', '/s', '>b'], 'a', '</s>'],
  [['</s>'], ['a<', '/t>'], 'a</t>', null],
  [['abc', 'b'], ['abc'], 'a', 'b'],
  [['c', 'bc'], ['abc'], 'a', 'bc'],
  [['ab', 'abc'], ['abc'], '', 'ab'],
  [['\n\nUser:'], ['Hi\n', '\nUse', 'less'], 'Hi\n\nUseless', null],
  [[''], ['a'], 'a', null],
  [[], ['a', 'b'], 'ab', null],
  [['aab'], ['aa', 'ab'], 'a', 'aab'],
])('stops %j over %j', (stops, pieces, text, stopped) => {
  expect(run(stops, pieces)).toEqual({ text, stopped })
})

test('after a stop everything is swallowed', () => {
  const matcher = new StopMatcher(['x'])
  matcher.push('ax')
  expect(matcher.push('more')).toEqual({ text: '', stopped: 'x' })
  expect(matcher.flush()).toBe('')
})
