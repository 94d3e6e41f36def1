/**
 * Damaged and hostile GGUF headers: each gives one of our errors in one line, never a crash, and never much memory.
 * Whatever we accept, ggml's reader (which libllama uses on the same file) accepts too.
 */
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { randomBits } from '../../src/core/random.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { readByGgml } from './by-ggml.ts'
import { SMALL, writeSmall } from './small-gguf.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())
const path = folder.file('damaged.gguf')

/** The error's code, or null where the file opens; every value of such a file can be read. */
function outcome(): string | null {
  try {
    using source = openGguf(path)
    for (const key of source.metadataKeys()) source.value(key)
    return null
  } catch (error) {
    if (!(error instanceof KvasirError)) throw error
    if (/\p{Cc}/u.test(error.message)) throw new Error('control characters in a message', { cause: error })
    return error.code
  }
}

const DAMAGED = ['model_invalid', 'model_unsupported']

/** What went wrong with a file that need not open, but must do so for ggml as well or give our error. */
function unsafe(): string | null {
  const code = outcome()
  if (code === null) return readByGgml(path) === null ? 'accepted by us, refused by ggml' : null
  return DAMAGED.includes(code) ? null : code
}

/** The lengths of those given, longest first, at which the cut file is not refused. */
function notRefused(header: Buffer, lengths: readonly number[]): number[] {
  writeFileSync(path, header)
  return lengths.filter((length) => {
    truncateSync(path, length)
    return !DAMAGED.includes(outcome() ?? 'accepted')
  })
}

/** What `check` says of the file with each of the bits flipped in turn, where it says anything. */
function complaints(header: Buffer, bits: Iterable<number>, check: () => string | null): string[] {
  const found: string[] = []
  const file = openSync(path, 'r+')
  for (const bit of bits) {
    const at = bit >> 3
    writeSync(file, Buffer.of(header[at]! ^ (1 << (bit & 7))), 0, 1, at)
    const complaint = check()
    if (complaint !== null) found.push(`bit ${bit}: ${complaint}`)
    writeSync(file, header, at, 1, at)
  }
  closeSync(file)
  return found
}

const demo = readFileSync('models/kvasir-demo/kvasir-demo-f16.gguf')
const demoHeader = demo.subarray(0, 129_536)

describe('a damaged file', () => {
  it('cut at any byte of a small header is refused', () => {
    const header = writeSmall(path)
    expect(notRefused(header, [...Array(header.length).keys()].toReversed())).toEqual([])
  })

  it('cut at every kilobyte of a real header is refused, as it is without the end of its data', () => {
    const lengths = Array.from({ length: Math.ceil(demoHeader.length / 1024) }, (_, i) => i * 1024)
    expect(notRefused(demoHeader, lengths.toReversed())).toEqual([])
    writeFileSync(path, demoHeader)
    truncateSync(path, demo.length - 1)
    expect(() => openGguf(path)).toThrow(/tensor '.*' ends at byte 11873792, but the file has 11873791/)
    truncateSync(path, demo.length)
    expect(outcome()).toBeNull()
  })

  it('with any one bit of a small header flipped is safe', () => {
    const header = writeSmall(path)
    expect(complaints(header, Array(header.length * 8).keys(), unsafe)).toEqual([])
  })

  it('with every fifth bit flipped in front of a terabyte of holes is safe', () => {
    const header = writeSmall(path, SMALL, 2 ** 40)
    const isOurs = () => (DAMAGED.includes(outcome() ?? DAMAGED[0]!) ? null : 'another error') // ggml would take gigabytes
    const bits = [...Array(header.length * 8).keys()].filter((bit) => bit % 5 === 0)
    expect(complaints(header, bits, isOurs)).toEqual([])
  })

  it('with bits flipped at random in a real header is safe', () => {
    writeFileSync(path, demoHeader)
    truncateSync(path, demo.length)
    const random = randomBits(1)
    const bits = Array.from({ length: 2000 }, () => Math.floor((random() / 2 ** 32) * demoHeader.length * 8))
    expect(complaints(demoHeader, bits, unsafe)).toEqual([])
  })
})

const u32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const u64 = (value: bigint | number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
const str = (text: string) => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)])
const start = (nTensors: bigint | number, nKeys: bigint | number, version = 3) =>
  Buffer.concat([Buffer.from('GGUF'), u32(version), u64(nTensors), u64(nKeys)])
const [STR, ARR, U8, U32, U64] = [u32(8), u32(9), u32(0), u32(4), u32(10)]
const tensor = (name: string, ne: (bigint | number)[], type: number, offset: bigint | number = 0) =>
  Buffer.concat([str(name), u32(ne.length), ...ne.map(u64), u32(type), u64(offset)])
const HUGE = 2n ** 63n - 1n

describe('a hostile header', () => {
  beforeEach(() => writeFileSync(path, ''))

  it.each<[string, RegExp, ...Buffer[]]>([
    ['2^63 tensors', /cannot be true/, start(HUGE, 0)],
    ['2^63 keys', /cannot be true/, start(0, HUGE)],
    ['-1 keys', /cannot be true/, start(0, 2n ** 64n - 1n)],
    ['more keys than we compare', /cannot be true/, start(0, 40_000)],
    ['version 1', /version 1 is not known/, start(0, 0, 1)],
    ['version 4', /version 4 is not known/, start(0, 0, 4)],
    ['the other byte order', /other byte order/, start(0, 0, 0x03000000)],
    ['a key of 2^63 bytes', /header is larger/, start(0, 1), u64(HUGE)],
    ['an empty key', /key 0 is empty/, start(0, 1), str(''), U32, u32(1)],
    ['a key twice', /a second 'k'/, start(0, 2), str('k'), U8, Buffer.of(1), str('k'), U8, Buffer.of(1)],
    ['a string of 2^63 bytes', /header is larger/, start(0, 1), str('k'), STR, u64(HUGE)],
    ['an array of 2^63 bytes', /header is larger/, start(0, 1), str('k'), ARR, U8, u64(HUGE)],
    ['an array whose bytes wrap to 8', /header is larger/, start(0, 1), str('k'), ARR, U64, u64(2n ** 61n + 1n)],
    ['an array of 2^60 empty strings', /header is larger/, start(0, 1), str('k'), ARR, STR, u64(2n ** 60n)],
    ['an array of arrays', /elements of 'k' have the unknown type 9/, start(0, 1), str('k'), ARR, ARR, u64(1)],
    ['a value of no type', /unknown type 77/, start(0, 1), str('k'), u32(77)],
    ['an alignment of zero', /power of two/, start(0, 1), str('general.alignment'), U32, u32(0)],
    ['an alignment of 48', /power of two/, start(0, 1), str('general.alignment'), U32, u32(48)],
    ['an alignment that is text', /power of two/, start(0, 1), str('general.alignment'), STR, str('32')],
    ['a long name', /longer than 63 bytes/, start(1, 0), tensor('n'.repeat(64), [1], 0)],
    ['five dimensions', /has 5 dimensions/, start(1, 0), tensor('t', [1, 1, 1, 1, 1], 0)],
    ['an empty tensor', /is empty/, start(1, 0), tensor('t', [4, 0], 0)],
    ['elements that wrap to 0', /larger than the file/, start(1, 0), tensor('t', [2n ** 32n, 2n ** 32n], 0)],
    ['elements that wrap to 1', /larger than the file/, start(1, 0), tensor('t', [HUGE, 2, 2n ** 63n], 0)],
    ['a size beyond the file', /larger than the file/, start(1, 0), tensor('t', [2 ** 20, 2 ** 20], 0)],
    ['a negative dimension', /larger than the file/, start(1, 0), tensor('t', [2n ** 64n - 1n], 0)],
    ['rows that are not whole blocks', /not whole blocks of 32/, start(1, 0), tensor('t', [33], 8)],
    ['a type ggml has dropped', /type 4, which ggml/, start(1, 0), tensor('t', [32], 4)],
    ['a type that never was', /type 4294967295, which ggml/, start(1, 0), tensor('t', [32], 2 ** 32 - 1)],
    ['an offset beyond the file', /is at byte/, start(1, 0), tensor('t', [32], 0, HUGE)],
    ['tensors in one place', /'u' is at byte 0/, start(2, 0), tensor('t', [32], 0), tensor('u', [32], 0)],
    ['a tensor twice', /two tensors 't'/, start(2, 0), tensor('t', [32], 0), tensor('t', [32], 0, 128)],
    [
      'control characters in a name',
      /two tensors '\ufffd\[31m\ufffd'/,
      start(2, 0),
      tensor('\x1b[31m\n', [32], 0),
      tensor('\x1b[31m\n', [32], 0, 128),
    ],
  ])('with %s is refused', (_, reason, ...pieces) => {
    writeFileSync(path, Buffer.concat(pieces))
    truncateSync(path, 2 ** 33)
    const before = process.memoryUsage()
    let message = ''
    try {
      openGguf(path)[Symbol.dispose]()
    } catch (error) {
      message = (error as Error).message
    }
    const after = process.memoryUsage()
    expect(message).toMatch(reason)
    expect(after.rss - before.rss).toBeLessThan(200e6)
    expect(DAMAGED).toContain(outcome())
  })
})
