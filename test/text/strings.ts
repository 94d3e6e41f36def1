/** Seeded texts of every kind that a tokenizer may meet. */
import { readFileSync } from 'node:fs'
import { random } from '../../src/core/random.ts'

/** Blocks of letters, marks and signs in use for long: the two Unicode tables that are compared agree on them. */
const SCRIPTS: readonly (readonly [first: number, last: number])[] = [
  [0x20, 0x7e], // ASCII
  [0xa1, 0xff], // Latin-1
  [0x100, 0x17f], // Latin extended
  [0x300, 0x36f], // combining marks
  [0x391, 0x3a1], // Greek
  [0x400, 0x45f], // Cyrillic
  [0x5d0, 0x5ea], // Hebrew
  [0x620, 0x64a], // Arabic
  [0x660, 0x669], // Arabic digits
  [0x905, 0x939], // Devanagari
  [0x93e, 0x94d], // its vowel signs
  [0xe01, 0xe30], // Thai
  [0x10d0, 0x10f0], // Georgian
  [0x1100, 0x1159], // Hangul jamo
  [0x2000, 0x206f], // general punctuation, spaces, zero-width characters
  [0x2070, 0x2079], // superscripts
  [0x2150, 0x218b], // number forms
  [0x2190, 0x21ff], // arrows
  [0x3000, 0x303f], // CJK punctuation
  [0x3041, 0x3096], // Hiragana
  [0x4e00, 0x9fa5], // Han
  [0xac00, 0xd7a3], // Hangul
  [0xe000, 0xe0ff], // private use
  [0xfe00, 0xfe0f], // variation selectors
  [0xff01, 0xff5e], // full width
  [0x1d400, 0x1d454], // mathematical letters
  [0x1f300, 0x1f64f], // emoji
  [0x1f900, 0x1f9ff],
  [0x20000, 0x2a6d6], // Han, extension B
]
const EMOJI = ['👨‍👩‍👧‍👦', '🇮🇸', '👍🏽', '❤️', '🏴󠁧󠁢󠁥󠁮󠁧󠁿', '1️⃣', '🤷‍♀️']
const SPACES = [
  ' ',
  '  ',
  '    ',
  '\n',
  '\n\n',
  '\r\n',
  '\t',
  ' \n',
  '\n ',
  '\u{a0}',
  '\u{2003}',
  '\u{3000}',
  '\u{b}',
  '\u{c}',
  '\r',
]
const WORDS = [
  "don't",
  "I'LL",
  "we've",
  "'S",
  'e.g.',
  '3.14159',
  '1,000,000',
  'https://a.b/c?d=e&f#g',
  'snake_case',
  'CamelCase',
  '...',
  '!?',
  '--',
  '«»',
  'naïve',
  'ﬁ',
  'Ⅷ',
  '½',
  '²',
]
const SPECIALS = [
  '<|end|>',
  '<|user|>',
  '<|assistant|>',
  '<|system|>',
  '<|endoftext|>',
  '<|end',
  '|>',
  '<|end|',
  '<|END|>',
  '<|unknown|>',
  '<s>',
  '</s>',
]

const SOURCES = ['../../src/core/errors.ts', '../../package.json', '../../models/text/heldout.txt']
const sources = SOURCES.map((path) => readFileSync(new URL(path, import.meta.url), 'utf8'))

export function texts(count: number, seed: number): string[] {
  const next = random(seed)
  const below = (n: number) => Math.floor(next() * n)
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!
  const times = (n: number, make: () => string) => Array.from({ length: n }, make).join('')
  const character = () => {
    const [first, last] = pick(SCRIPTS)
    return String.fromCodePoint(first + below(last - first + 1))
  }
  const slice = () => {
    const text = pick(sources)
    const from = below(text.length)
    return text.slice(from, from + below(200))
  }
  const script = () => {
    const [first, last] = pick(SCRIPTS)
    return times(below(30), () => (next() < 0.2 ? pick(SPACES) : String.fromCodePoint(first + below(last - first + 1))))
  }
  const kinds: readonly (() => string)[] = [
    slice,
    script,
    () => times(below(40), character),
    () => times(below(20), () => pick([...EMOJI, ...WORDS]) + pick(['', ...SPACES])),
    () => times(below(30), () => String.fromCharCode(below(0x20)) + pick(['', 'a', ' '])),
    () => Buffer.from(Array.from({ length: below(60) }, () => below(256))).toString('utf8'),
    () => times(below(12), () => pick(SPECIALS) + pick(['', ' ', '\n', 'text'])),
    () => pick([...SPACES, ...WORDS, 'a', '0', '-', '=']).repeat(below(100)),
    () => times(below(40), () => pick([...SPACES, ...WORDS, ...EMOJI, ...SPECIALS, character()])),
    () => times(below(20), () => String.fromCharCode(0xd800 + below(0x800)) + pick(['', 'a', '\u{1f600}'])),
  ]
  return Array.from({ length: count }, (_, i) => kinds[i % kinds.length]!())
}
