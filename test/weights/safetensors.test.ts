import { copyFileSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { BF16, F16, F32 } from '../../src/ggml/types.ts'
import { randomBits } from '../../src/core/random.ts'
import { openHuggingFace } from '../../src/weights/safetensors.ts'
import { TemporaryFolder } from '../support/reference.ts'

const DEMO = 'models/kvasir-demo'
const temporary = new TemporaryFolder()
const folder = temporary.file('model')
afterAll(() => temporary[Symbol.dispose]())

beforeEach(() => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  write('config.json', '{"hidden_size": 4, "rope_scaling": {"factor": 2}, "layers": [1, 2], "none": null}')
})

const write = (name: string, content: string | Buffer) => writeFileSync(`${folder}/${name}`, content)

function safetensors(header: unknown, nDataBytes = 64): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, Buffer.alloc(nDataBytes)])
}

const tensor = (dtype: string, shape: unknown, data_offsets: unknown) => ({ dtype, shape, data_offsets })

describe('a Hugging Face folder', () => {
  it('gives its tensors in the order of ggml, each with its place in the file', () => {
    const header = {
      __metadata__: { format: 'pt' },
      'a.weight': tensor('F32', [2, 3], [0, 24]),
      'b.weight': tensor('BF16', [4], [24, 32]),
      c: tensor('F16', [], [32, 34]),
      d: tensor('F16', [1, 2, 3, 2], [40, 64]),
    }
    const bytes = safetensors(header)
    write('model.safetensors', bytes)
    using source = openHuggingFace(folder)
    const data = bytes.length - 64
    expect([...source.tensors.values()]).toEqual([
      { name: 'a.weight', type: F32, ne: [3, 2, 1, 1], file: 0, offset: data, nBytes: 24 },
      { name: 'b.weight', type: BF16, ne: [4, 1, 1, 1], file: 0, offset: data + 24, nBytes: 8 },
      { name: 'c', type: F16, ne: [1, 1, 1, 1], file: 0, offset: data + 32, nBytes: 2 },
      { name: 'd', type: F16, ne: [2, 3, 2, 1], file: 0, offset: data + 40, nBytes: 24 },
    ])
    expect(source.files).toEqual([`${folder}/model.safetensors`])
  })

  it("gives config.json's fields as they are, and no others", () => {
    write('model.safetensors', safetensors({}))
    using source = openHuggingFace(folder)
    expect(source.metadataKeys()).toEqual(['hidden_size', 'rope_scaling', 'layers', 'none'])
    expect(source.metadataKeys().map((key) => source.metadata(key))).toEqual([4, { factor: 2 }, [1, 2], null])
    expect(source.metadata('toString')).toBeUndefined()
  })

  it('in shards is joined by its index', () => {
    write('one.safetensors', safetensors({ a: tensor('F32', [2], [0, 8]), extra: tensor('F32', [2], [8, 16]) }))
    write('two.safetensors', safetensors({ b: tensor('F16', [2], [0, 4]) }))
    write('model.safetensors.index.json', JSON.stringify({ weight_map: { a: 'one.safetensors', b: 'two.safetensors' } }))
    using source = openHuggingFace(folder)
    expect([...source.tensors.values()].map(({ name, file }) => [name, file])).toEqual([
      ['a', 0],
      ['b', 1],
    ])
    expect(source.files).toEqual([`${folder}/one.safetensors`, `${folder}/two.safetensors`])
  })

  it('of the bundled model has the shapes its config.json says', () => {
    using source = openHuggingFace(DEMO)
    expect(source.tensors.size).toBe(56)
    expect(source.tensors.get('model.embed_tokens.weight')).toMatchObject({ type: F16, ne: [256, 4096, 1, 1] })
    expect(source.tensors.get('model.layers.5.mlp.down_proj.weight')).toMatchObject({ type: F16, ne: [704, 256, 1, 1] })
  })
})

describe('a folder that is damaged', () => {
  const index = (weightMap: unknown) => () => write('model.safetensors.index.json', JSON.stringify({ weight_map: weightMap }))
  const single = (header: unknown, nDataBytes?: number) => () => write('model.safetensors', safetensors(header, nDataBytes))
  const one = (entry: unknown) => single({ t: entry })

  it.each<[string, string, RegExp, () => void]>([
    ['without weights', 'model_not_found', /neither model.safetensors nor/, () => {}],
    ['without config.json', 'model_not_found', /config.json.*no such file/, () => rmSync(`${folder}/config.json`)],
    ['with a config.json that is cut', 'model_invalid', /its JSON is wrong/, () => write('config.json', '{"a": ')],
    ['with a config.json that is a list', 'model_invalid', /not an object/, () => write('config.json', '[1]')],
    ['with an empty config.json', 'model_invalid', /config.json.*is empty/, () => write('config.json', '')],
    ['with a config.json of 20 MB', 'model_unsupported', /larger than/, () => truncateSync(`${folder}/config.json`, 20e6)],
    ['with empty weights', 'model_invalid', /file is empty/, () => write('model.safetensors', '')],
    ['with 7 bytes of weights', 'model_invalid', /too short/, () => write('model.safetensors', '1234567')],
    [
      'with a header longer than the file',
      'model_invalid',
      /longer than the file/,
      () => write('model.safetensors', '\xff\xff\xff\xff\xff\xff\xff\x7fabc'),
    ],
    [
      'with a header of a gigabyte',
      'model_unsupported',
      /header is larger than/,
      () => {
        write('model.safetensors', Buffer.of(0, 0, 0, 64, 0, 0, 0, 0))
        truncateSync(`${folder}/model.safetensors`, 2 ** 31)
      },
    ],
    ['with a header that is no JSON', 'model_invalid', /its JSON is wrong/, single('hello')],
    ['with a header that is nested a million deep', 'model_invalid', /its JSON is wrong/, single('{"a":'.repeat(1e6))],
    ['with a header that is a number', 'model_invalid', /not an object/, single('7')],
    ['with a tensor that is text', 'model_invalid', /'t' has no description/, one('x')],
    ['with a tensor of no type', 'model_invalid', /no type or shape/, one({ shape: [1], data_offsets: [0, 4] })],
    ['with a shape that is text', 'model_invalid', /no type or shape/, one(tensor('F32', 'x', [0, 4]))],
    ['with a negative dimension', 'model_invalid', /no type or shape/, one(tensor('F32', [-1], [0, 4]))],
    ['with half a dimension', 'model_invalid', /no type or shape/, one(tensor('F32', [0.5], [0, 2]))],
    ['with offsets that are none', 'model_invalid', /no offsets/, one(tensor('F32', [1], [0]))],
    ['with offsets that are negative', 'model_invalid', /no offsets/, one(tensor('F32', [1], [-4, 0]))],
    ['with integers', 'model_unsupported', /tensor 't' has type I64; F32, F16 and BF16/, one(tensor('I64', [1], [0, 8]))],
    ['with five dimensions', 'model_unsupported', /5 dimensions/, one(tensor('F32', [1, 1, 1, 1, 1], [0, 4]))],
    ['with an empty tensor', 'model_invalid', /'t' is empty/, one(tensor('F32', [3, 0], [0, 0]))],
    ['with too few bytes for the shape', 'model_invalid', /has 4 bytes, not 8/, one(tensor('F32', [2], [0, 4]))],
    ['with a shape whose product is huge', 'model_invalid', /has 4 bytes, not/, one(tensor('F32', [2 ** 40, 2 ** 40], [0, 4]))],
    ['with an offset beyond the file', 'model_invalid', /'t' ends at byte/, one(tensor('F32', [1], [64, 68]))],
    ['with offsets near 2^53', 'model_invalid', /'t' ends at byte/, one(tensor('F32', [1], [2 ** 53 - 5, 2 ** 53 - 1]))],
    [
      'with tensors that overlap',
      'model_invalid',
      /'b' overlaps/,
      single({ a: tensor('F32', [2], [0, 8]), b: tensor('F32', [1], [4, 8]) }),
    ],
    ['with an index that is cut', 'model_invalid', /its JSON is wrong/, () => write('model.safetensors.index.json', '{')],
    ['with an index without a map', 'model_invalid', /no 'weight_map'/, index([])],
    ['with an index that leads elsewhere', 'model_invalid', /in no file of the folder/, index({ a: '../x.safetensors' })],
    ['with an index of numbers', 'model_invalid', /in no file of the folder/, index({ a: 1 })],
    ['with a missing shard', 'model_not_found', /s.safetensors.*no such file/, index({ a: 's.safetensors' })],
    [
      'with a shard without its tensor',
      'model_invalid',
      /'a' is not in it/,
      () => {
        index({ a: 's.safetensors' })()
        write('s.safetensors', safetensors({ b: tensor('F32', [1], [0, 4]) }))
      },
    ],
  ])('%s: %s', (_, code, reason, damage) => {
    damage()
    expect(() => openHuggingFace(folder)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(reason) }))
  })

  it('by bits flipped in a real header gives our errors only', () => {
    copyFileSync(`${DEMO}/config.json`, `${folder}/config.json`)
    const whole = readFileSync(`${DEMO}/model.safetensors`)
    const header = Buffer.from(whole.subarray(0, 8 + whole.readUInt32LE(0)))
    const random = randomBits(1)
    const path = `${folder}/model.safetensors`
    const outcomes = Array.from({ length: 1500 }, (_, i) => {
      const flipped = Buffer.from(header)
      const bit = i < 64 ? i : Math.floor((random() / 2 ** 32) * header.length * 8)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      writeFileSync(path, flipped)
      truncateSync(path, whole.length)
      return outcome(dirname(path))
    })
    const allowed = ['opened', 'model_invalid', 'model_unsupported']
    expect(outcomes.filter((code) => !allowed.includes(code))).toEqual([])
    expect(new Set(outcomes).size).toBe(3)
  })
})

function outcome(path: string): string {
  try {
    openHuggingFace(path)[Symbol.dispose]()
    return 'opened'
  } catch (error) {
    if (!(error instanceof KvasirError)) throw error
    return /\p{Cc}/u.test(error.message) ? `control characters: ${error.message}` : error.code
  }
}
