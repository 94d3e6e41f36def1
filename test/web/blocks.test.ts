import { describe, expect, it } from 'vitest'
import { blocksOf } from '../../web/src/blocks.ts'

const text = (content: string) => ({ kind: 'text', text: content, language: '' })
const code = (content: string, language = '') => ({ kind: 'code', text: content, language })

describe('an answer cut into text and code', () => {
  it.each([
    ['plain text stays whole', 'one\n\ntwo', [text('one\n\ntwo')]],
    ['nothing gives nothing', '', []],
    ['a fenced block', 'a\n```ts\nlet x = 1\n```\nb', [text('a'), code('let x = 1', 'ts'), text('b')]],
    ['blank lines around a block do not become paragraphs', '\n```\nx\n```\n', [code('x')]],
    ['a block that is still being written', 'a\n```py\nx = 1\ny', [text('a'), code('x = 1\ny', 'py')]],
    ['an empty block that has just been opened', '```', [code('')]],
    ['a longer fence holds a shorter one', '````\n```\n````', [code('```')]],
    ['backticks within a line are text', 'use ```x``` here', [text('use ```x``` here')]],
    ['markup is text', '<b>1 & 2</b>', [text('<b>1 & 2</b>')]],
  ])('%s', (_, answer, blocks) => {
    expect(blocksOf(answer)).toEqual(blocks)
  })
})
