import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { openWeights } from '../../src/weights/open.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { writeSmall } from './small-gguf.ts'

const DEMO = 'models/kvasir-demo'
const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

/** A folder with these files: GGUFs are small ones, others are copies of the bundled model's. */
function folderOf(name: string, ...files: string[]): string {
  mkdirSync(folder.file(name))
  for (const file of files) {
    const path = folder.file(`${name}/${file}`)
    if (file.endsWith('.gguf')) writeSmall(path)
    else copyFileSync(`${DEMO}/${file}`, path)
  }
  return folder.file(name)
}

describe('opening a model by its path', () => {
  it.each<[string, () => string, string]>([
    ['a .gguf file', () => `${DEMO}/kvasir-demo-f16.gguf`, 'gguf'],
    ['a folder in both forms', () => DEMO, 'huggingface'],
    ['a Hugging Face folder', () => folderOf('hf', 'config.json', 'model.safetensors'), 'huggingface'],
    ['a folder with one GGUF', () => folderOf('one', 'm.gguf'), 'gguf'],
    ['a folder with one GGUF beside a config.json', () => folderOf('both', 'm.gguf', 'config.json'), 'gguf'],
    [
      'a GGUF by another name',
      () => {
        writeSmall(folder.file('model.bin'))
        return folder.file('model.bin')
      },
      'gguf',
    ],
  ])('%s', (_, path, format) => {
    using source = openWeights(path())
    expect(source.format).toBe(format)
  })

  it.each<[string, () => string, string, RegExp]>([
    ['nothing', () => folder.file('nothing'), 'model_not_found', /no such file/],
    ['a path through a file', () => `${DEMO}/config.json/x`, 'model_not_found', /not a folder/],
    ['a path no system takes', () => 'a\0b', 'model_not_found', /null bytes/],
    ['an empty folder', () => folderOf('empty'), 'model_not_found', /neither a config.json nor a .gguf/],
    ['a folder with two GGUFs', () => folderOf('two', 'b.gguf', 'a.gguf'), 'model_not_found', /one of a.gguf, b.gguf/],
    ['a config.json alone', () => folderOf('config', 'config.json'), 'model_not_found', /neither model.safetensors/],
    ['a .safetensors file', () => `${DEMO}/model.safetensors`, 'model_unsupported', /give the folder/],
    [
      'a picture',
      () => {
        writeFileSync(folder.file('x.gguf'), Buffer.concat([Buffer.from('\x89PNG\r\n', 'latin1'), Buffer.alloc(100)]))
        return folder.file('x.gguf')
      },
      'model_invalid',
      /does not start with 'GGUF'/,
    ],
  ])('%s is refused', (_, path, code, reason) => {
    expect(() => openWeights(path())).toThrow(expect.objectContaining({ code, message: expect.stringMatching(reason) }))
  })

  it('a folder with one split GGUF opens its first part', () => {
    const path = folderOf('split', 'm-00002-of-00002.gguf', 'm-00001-of-00002.gguf')
    using source = openWeights(path) // the parts say nothing of a split, so the first stands alone
    expect(source.files).toEqual([`${path}/m-00001-of-00002.gguf`])
  })
})
