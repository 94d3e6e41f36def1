import { describe, expect, test } from 'vitest'
import { cutText, isWordEnd, SpecialFinder } from '../../src/text/cuts.ts'
import { GgufTokenizer } from '../../src/text/gguf-tokenizer.ts'
import { bundled, DirectVocab, GGUF, sourceOf } from './sources.ts'
import { texts } from './strings.ts'

const none = () => new SpecialFinder([])
const good = bundled()

const REGEX_PRE = [
  'default falcon tekken gpt-4o deepseek-llm deepseek-coder deepseek-v3 youtu jais-2 tiny_aya',
  'minicpm5 poro-chat viking superbpe bailingmoe seed-coder afmoe granite-embed-multi-97m',
].flatMap((line) => line.split(' '))

describe('where words end', () => {
  test.each(REGEX_PRE)('a text may be cut without a change of its ids, with %s', (pre) => {
    using tokenizer = new GgufTokenizer(sourceOf('gguf', { ...good, 'tokenizer.ggml.pre': pre }))
    let nCuts = 0
    for (const text of texts(150, 3)) {
      const ids = tokenizer.encode(text).join()
      for (let i = 1; i < text.length; i++) {
        // A pattern looks one character ahead of a run of spaces, so that the last one can go with the next word.
        const endsRun = /\s\n$/.test(text.slice(0, i))
        if (endsRun || !isWordEnd(text.charCodeAt(i - 1), text.charCodeAt(i))) continue
        nCuts++
        expect([...tokenizer.encode(text.slice(0, i)), ...tokenizer.encode(text.slice(i))].join(), text).toBe(ids)
      }
    }
    expect(nCuts).toBeGreaterThan(100)
  })

  test('no long text is cut', () => {
    const prose = 'The access code for the calm otter is 40412.\nNora keeps the lamp in the dusty attic. '.repeat(1000)
    expect(cutText(prose, true, none)).toHaveLength(1)
    expect(cutText('汉字，'.repeat(5000), true, none)).toHaveLength(1)
    expect(cutText('x\n'.repeat(5000), true, none)).toHaveLength(1)
  })
})

describe('a run that a pattern would match as a whole', () => {
  test.each(['a', 'A', '1', '!', ' ', '\n', 'é', '漢', '😀', '\u{3000} ', '-\u{feff}'])('of %j is cut', (unit) => {
    const text = unit.repeat(10_000)
    const parts = cutText(text, true, none)
    expect(parts.join('')).toBe(text)
    for (const part of parts) {
      expect(part.length).toBeLessThanOrEqual(2001)
      expect(Buffer.from(part).toString()).toBe(part) // no half of a surrogate pair
    }
    expect(cutText(text, false, none)).toHaveLength(1)
  })

  test.each(REGEX_PRE)('does not end the process with %s', (pre) => {
    using tokenizer = new GgufTokenizer(sourceOf('gguf', { ...good, 'tokenizer.ggml.pre': pre }))
    for (const unit of ['a', '1', '!', ' ', '\n', '漢', 'Aa']) {
      const text = unit.repeat(8000)
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    }
  })
})

describe('special tokens', () => {
  test('in great number are read in time, with the ids of libllama', () => {
    using tokenizer = new GgufTokenizer(sourceOf('gguf', good))
    using direct = new DirectVocab(GGUF)
    const text = '<|user|>a<|end|>'.repeat(3000)
    expect(tokenizer.encode(text, { parseSpecial: true })).toEqual(direct.tokenize(text, true, true))
    const many = tokenizer.encode('<|end|>'.repeat(100_000), { parseSpecial: true })
    expect(many.length).toBe(100_000)
    expect(many.every((id) => id === tokenizer.eos)).toBe(true)
  })

  test('are never cut, and a part begins with one', () => {
    const finder = new SpecialFinder(['<|end|>'])
    const parts = cutText(`${'<|end|>'.repeat(5000)}tail`, true, () => finder)
    expect(parts).toHaveLength(3)
    for (const part of parts) expect(part).toMatch(/^(<\|end\|>)+(tail)?$/)
  })

  test.each([
    ['apart', ['<a>', '<b>', '[X]'], ['<a>', '<b>', '[X]']],
    ['one in another', ['<a>', 'x<a>y'], []],
    ['one begins as another ends', ['<a>', '>b<'], []],
    ['repeated', ['\n\n', '\n\n\n', '<a>'], ['<a>']],
    ['overlapping itself', ['aba', '<x>'], ['<x>']],
    ['too long to compare', ['<a>', 'z'.repeat(1000)], []],
    ['empty', ['', '<a>'], ['<a>']],
  ])('whose texts are %s', (_, specials, found) => {
    const finder = new SpecialFinder(specials)
    expect(specials.filter((text) => finder.lengthAt(text, 0) === text.length && text !== '')).toEqual(found)
  })
})
