import { expect, test } from 'vitest'
import { nearest } from '../../src/cli/suggest.ts'
import { columns } from '../../src/cli/help.ts'

test.each([
  ['inpsect', 'inspect'],
  ['benhc', 'bench'],
  ['servr', 'serve'],
  ['tok', 'tokenize'],
  ['x', undefined],
  ['quantize', undefined],
])('%s: did you mean %s?', (word, expected) => {
  expect(nearest(word, ['run', 'chat', 'serve', 'inspect', 'tokenize', 'bench', 'synth'])).toBe(expected)
})

test('long texts are wrapped into their column, long names stand above it', () => {
  const about = 'word '.repeat(30).trim()
  const lines = columns([
    ['-n N', about],
    [`--${'x'.repeat(40)}`, 'short'],
  ])
  expect(lines.every((line) => line.length <= 110)).toBe(true)
  expect(lines[1]).toMatch(/^ {30,}word/)
  expect(lines.at(-2)).toBe(`  --${'x'.repeat(40)}`)
  expect(lines.at(-1)!.trim()).toBe('short')
})
