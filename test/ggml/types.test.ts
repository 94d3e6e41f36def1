import { describe, expect, it } from 'vitest'
import { ggml } from '../../src/ggml/library.ts'
import { rowBytes, TYPES, typeId, typeInfo, typeName } from '../../src/ggml/types.ts'

const GGML_TYPE_COUNT = 43

describe('the table of types', () => {
  it('says of every id what the library says', () => {
    const ids = Array.from({ length: GGML_TYPE_COUNT }, (_, id) => id)
    const sizes = ids.map((id) => [ggml().ggml_blck_size(id), ggml().ggml_type_size(id)])
    expect(ids.map((id) => [typeInfo(id)?.blockSize ?? 0, typeInfo(id)?.blockBytes ?? 0])).toEqual(sizes)
    expect(TYPES.map(({ name }) => name)).toEqual(TYPES.map(({ id }) => ggml().ggml_type_name(id).toLowerCase()))
    expect(TYPES.at(-1)!.id).toBe(GGML_TYPE_COUNT - 1)
  })

  it.each(TYPES.filter((info) => info.quantizable))('$name is made from floats by the library', ({ id, blockSize }) => {
    const row = Float32Array.from({ length: blockSize * 2 }, (_, i) => Math.sin(i))
    const bytes = new Uint8Array(rowBytes(id, row.length))
    expect(ggml().ggml_quantize_requires_imatrix(id)).toBe(false)
    expect(ggml().ggml_quantize_chunk(id, row, bytes, 0, 1, row.length, null)).toBe(bytes.length)
    expect(bytes.some((byte) => byte !== 0)).toBe(true)
  })

  it('finds types by the names users write', () => {
    expect(typeId('q8_0')).toBe(8)
    expect(typeId('Q4_K')).toBe(12)
    expect(typeName(30)).toBe('bf16')
    expect(typeName(31)).toBe('type 31')
    expect(() => typeId('q4_2')).toThrow(/'q4_2' is not one of f32, f16/)
  })

  it('counts the bytes of a row and refuses a broken block', () => {
    expect(rowBytes(typeId('q4_k'), 512)).toBe(288)
    expect(() => rowBytes(typeId('q4_k'), 576)).toThrow(RangeError)
  })
})
