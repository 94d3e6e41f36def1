import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import type { GgufValue } from '../../src/weights/gguf-values.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { readByGgml, tensorsOf } from './by-ggml.ts'
import { SMALL, VALUES, writeSmall } from './small-gguf.ts'

const DEMO = 'models/kvasir-demo/kvasir-demo-f16.gguf'
const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

describe('reading a GGUF file', () => {
  it.each(['the bundled model', 'one of every kind of value'])("gives what ggml's own reader gives: %s", (which) => {
    const path = which === 'the bundled model' ? DEMO : folder.file('kinds.gguf')
    if (path !== DEMO) writeSmall(path)
    const reference = readByGgml(path)!
    using source = openGguf(path)
    expect(source.metadataKeys()).toEqual([...reference.values.keys()])
    expect(new Map(source.metadataKeys().map((key) => [key, source.value(key)]))).toEqual(reference.values)
    expect(tensorsOf(source)).toEqual(reference.tensors)
  })

  it('knows every kind of value and no key that is not there', () => {
    const path = folder.file('values.gguf')
    writeSmall(path)
    using source = openGguf(path)
    expect(VALUES.map(([key]) => source.metadata(key))).toEqual(VALUES.map(([, { value }]) => value))
    expect(source.metadata('a.missing')).toBeUndefined()
    expect(source.metadata('constructor')).toBeUndefined()
  })

  it('reads no array after it was closed', () => {
    const source = openGguf(DEMO)
    source[Symbol.dispose]()
    expect(() => source.metadata('tokenizer.ggml.tokens')).toThrow(/closed/)
    expect(source.metadata('llama.block_count')).toBe(6)
  })
})

const split = (no: number, count: number, tensors: number): [string, GgufValue][] => [
  ['split.no', { kind: 'u16', value: no }],
  ['split.count', { kind: 'u16', value: count }],
  ['split.tensors.count', { kind: 'i32', value: tensors }],
]

/** Three parts with one tensor of {@link SMALL} each; `change` may alter a part's metadata. */
function writeParts(name: string, change = (_part: number, metadata: [string, GgufValue][]) => metadata): string[] {
  mkdirSync(folder.file(name))
  return SMALL.tensors.map((tensor, i) => {
    const path = folder.file(`${name}/m-0000${i + 1}-of-00003.gguf`)
    writeSmall(path, { metadata: change(i, split(i, 3, 3)), tensors: [tensor] })
    return path
  })
}

describe('a split file', () => {
  it('is opened as a whole by its first part', () => {
    const paths = writeParts('whole')
    using source = openGguf(paths[0]!)
    expect(source.files).toEqual(paths)
    expect([...source.tensors.values()].map(({ name, file }) => [name, file])).toEqual([
      ['a', 0],
      ['b', 1],
      ['c', 2],
    ])
  })

  it.each<[string, string, (paths: string[]) => string]>([
    ['a later part', 'it is part 2 of 3; open the first one, .*m-00001-of-00003', (paths) => paths[1]!],
    [
      'a part that is missing',
      'part 3 of 3 is missing',
      (paths) => {
        const first = `${paths[0]!.slice(0, -24)}gone-00001-of-00003.gguf`
        writeSmall(first, { metadata: split(0, 3, 3), tensors: [SMALL.tensors[0]!] })
        writeSmall(first.replace('00001-of', '00002-of'), { metadata: split(1, 3, 3), tensors: [SMALL.tensors[1]!] })
        return first
      },
    ],
    [
      'a name that is no part',
      'its name does not end in',
      (paths) => {
        writeSmall(`${paths[0]!}.gguf`, { metadata: split(0, 3, 3), tensors: [] })
        return `${paths[0]!}.gguf`
      },
    ],
  ])('refuses %s', (what, reason, choose) => {
    const paths = writeParts(what.replaceAll(' ', '-'))
    expect(() => openGguf(choose(paths))).toThrow(new RegExp(reason))
  })

  it.each<[string, string, (part: number, metadata: [string, GgufValue][]) => [string, GgufValue][]]>([
    ['parts-in-the-wrong-order', 'it is not part 2 of 3', (part) => split(part === 0 ? 0 : 3 - part, 3, 3)],
    ['a-part-of-another-model', 'it is not part 3 of 3', (part) => split(part, part === 2 ? 4 : 3, 3)],
    ['too-few-tensors', 'its parts hold 3 tensors, not 4', (part) => split(part, 3, 4)],
    [
      'a-count-that-is-none',
      "'split.count' is not a count",
      (_, metadata) => [...metadata.slice(0, 1), ['split.count', { kind: 'str', value: '3' }]],
    ],
  ])('refuses %s', (name, reason, change) => {
    const paths = writeParts(name, change)
    expect(() => openGguf(paths[0]!)).toThrow(new RegExp(reason))
  })

  it('refuses a tensor that is in two parts', () => {
    const paths = writeParts('twice')
    writeSmall(paths[2]!, { metadata: split(2, 3, 3), tensors: [SMALL.tensors[0]!] })
    expect(() => openGguf(paths[0]!)).toThrow(/'a' is in an earlier part too/)
  })
})

describe('a path that is no file of ours', () => {
  it.each<[string, string, RegExp, () => void]>([
    ['nothing', 'model_not_found', /no such file/, () => {}],
    ['folder', 'model_not_found', /it is a folder/, () => mkdirSync(folder.file('folder'))],
    ['empty', 'model_invalid', /the file is empty/, () => writeFileSync(folder.file('empty'), '')],
    ['short', 'model_invalid', /does not start with 'GGUF'/, () => writeFileSync(folder.file('short'), 'GGUF')],
    ['text', 'model_invalid', /does not start with 'GGUF'/, () => writeFileSync(folder.file('text'), 'hello\n'.repeat(10))],
  ])('%s: %s', (name, code, reason, make) => {
    make()
    expect(() => openGguf(folder.file(name))).toThrow(expect.objectContaining({ code, message: expect.stringMatching(reason) }))
  })

  it('a device is not read without end', () => {
    expect(() => openGguf('/dev/zero')).toThrow(/not a regular file/)
  })
})
