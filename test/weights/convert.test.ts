import { describe, expect, it } from 'vitest'
import { ggml } from '../../src/ggml/library.ts'
import { BF16, F16, F32, Q8_0, rowBytes, typeId } from '../../src/ggml/types.ts'
import { canConvert, convertRows } from '../../src/weights/convert.ts'

const bytesOf = (array: Float32Array | Uint16Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
const floatsOf = (bytes: Uint8Array) => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
const wave = (n: number) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 0.37) * 0.05)

describe('converting rows', () => {
  it.each(['f16', 'bf16'])('floats survive the way through %s and back within its precision', (name) => {
    const rows = { nRows: 3, rowLength: 50 }
    const floats = wave(150)
    const narrow = convertRows(bytesOf(floats), { from: F32, to: typeId(name), ...rows })
    const back = floatsOf(convertRows(narrow, { from: typeId(name), to: F32, ...rows }))
    const tolerance = name === 'f16' ? 2 ** -11 : 2 ** -8 // half a unit in the last of 11 and of 8 bits
    floats.forEach((value, i) => expect(Math.abs(back[i]! - value)).toBeLessThanOrEqual(Math.abs(value) * tolerance + 3e-8))
  })

  it('of exact values gives exact values', () => {
    const one = convertRows(bytesOf(Float32Array.of(1, -2, 0.5, 0)), { from: F32, to: BF16, nRows: 2, rowLength: 2 })
    expect([...new Uint16Array(one.buffer)]).toEqual([0x3f80, 0xc000, 0x3f00, 0])
    const half = convertRows(one, { from: BF16, to: F16, nRows: 2, rowLength: 2 })
    expect([...new Uint16Array(half.buffer)]).toEqual([0x3c00, 0xc000, 0x3800, 0])
  })

  it('in several slabs equals one quantisation of the whole', () => {
    const [nRows, rowLength] = [700, 4096] // 2.9 M elements: three slabs
    const floats = wave(nRows * rowLength)
    const whole = new Uint8Array(nRows * rowBytes(Q8_0, rowLength))
    ggml().ggml_quantize_chunk(Q8_0, floats, whole, 0, nRows, rowLength, null)
    const parts = convertRows(bytesOf(floats), { from: F32, to: Q8_0, nRows, rowLength })
    expect(Buffer.compare(parts, whole)).toBe(0)
  })

  it('reads sources at odd addresses', () => {
    const half = convertRows(bytesOf(wave(64)), { from: F32, to: F16, nRows: 1, rowLength: 64 })
    const shifted = new Uint8Array(half.length + 1)
    shifted.set(half, 1)
    const options = { from: F16, to: Q8_0, nRows: 2, rowLength: 32 }
    expect(convertRows(shifted.subarray(1), options)).toEqual(convertRows(half, options))
  })

  it('refuses what would make C read beyond the end or abort', () => {
    expect(() => convertRows(new Uint8Array(100), { from: F32, to: Q8_0, nRows: 1, rowLength: 32 })).toThrow(RangeError)
    for (const [from, to, rowLength] of [
      [F32, typeId('q4_k'), 128],
      [F32, typeId('iq2_xxs'), 256],
      [F32, typeId('q8_k'), 256],
      [Q8_0, F32, 32],
      [F32, 31, 32],
    ] as const)
      expect(canConvert(from, to, rowLength)).toBe(false)
    expect(canConvert(BF16, typeId('q4_k'), 256)).toBe(true)
  })
})
