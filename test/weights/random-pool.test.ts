import { describe, expect, it } from 'vitest'
import { F16, F32, Q8_0, typeId } from '../../src/ggml/types.ts'
import { RandomPool, WEIGHT_STD } from '../../src/weights/random-pool.ts'

const floats = (bytes: Buffer) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))

describe('random weights', () => {
  const pool = new RandomPool(1)

  it('are normal, with the standard deviation of fresh models', () => {
    const values = floats(pool.fill(Buffer.alloc(4 << 20), F32, 1 << 20))
    const n = values.length
    const mean = values.reduce((sum, x) => sum + x, 0) / n
    const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n
    const within = values.filter((x) => Math.abs(x) < WEIGHT_STD).length / n
    expect(Math.abs(mean)).toBeLessThan(WEIGHT_STD * 0.01)
    expect(Math.sqrt(variance)).toBeCloseTo(WEIGHT_STD, 4)
    expect(within).toBeCloseTo(0.6827, 2)
  })

  it.each(['f16', 'q8_0', 'q4_0', 'q4_k'])('in %s have no two rows alike', (name) => {
    const [nRows, rowLength] = [4096, 2048]
    const bytes = pool.fill(Buffer.alloc(nRows * rowLength * 4), typeId(name), nRows * rowLength)
    const row = bytes.length / nRows
    const rows = new Set(Array.from({ length: nRows }, (_, i) => bytes.toString('latin1', i * row, (i + 1) * row)))
    expect(rows.size).toBe(nRows)
  })

  it('are the same from the same seed, and others from another', () => {
    const draw = (seed: number) => new RandomPool(seed).fill(Buffer.alloc(1 << 16), F16, 1 << 15).toString('latin1')
    expect(draw(7)).toBe(draw(7))
    expect(draw(7)).not.toBe(draw(8))
  })

  it('fill a tensor that is no multiple of the stretches they come in', () => {
    const bytes = pool.fill(Buffer.alloc(4096), Q8_0, 288)
    expect(bytes.length).toBe(9 * 34)
    expect(Array.from({ length: 9 }, (_, i) => bytes.readUInt16LE(i * 34)).every((scale) => scale > 0)).toBe(true)
  })
})
