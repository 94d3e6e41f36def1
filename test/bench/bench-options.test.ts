import { describe, expect, it } from 'vitest'
import { benchSchema } from '../../src/bench/bench-options.ts'

const parse = (input: Record<string, unknown>) => benchSchema.parse({ model: 'm.gguf', ...input })

describe('benchSchema', () => {
  it('has the defaults of llama-bench', () => {
    const { nPrompt, nGen, nDepth, repetitions, nBatch, nUbatch } = parse({})
    expect({ nPrompt, nGen, nDepth, repetitions, nBatch, nUbatch }).toEqual({
      nPrompt: [512],
      nGen: [128],
      nDepth: [0],
      repetitions: 5,
      nBatch: 2048,
      nUbatch: 512,
    })
  })

  it.each([
    ['0,32k', [0, 32768]],
    ['1m', [1048576]],
    [' 4 , 8 ', [4, 8]],
    [
      [1, 2],
      [1, 2],
    ],
    [7, [7]],
  ])('reads %o as the depths %o', (nDepth, expected) => {
    expect(parse({ nDepth }).nDepth).toEqual(expected)
  })

  it.each(['-1', 'many', '1.5', '1,,x'])("refuses '%s' as a list of lengths", (nPrompt) => {
    expect(benchSchema.safeParse({ model: 'm.gguf', nPrompt }).success).toBe(false)
  })

  it('refuses another engine to compare with', () => {
    expect(benchSchema.safeParse({ model: 'm.gguf', versus: 'vllm' }).success).toBe(false)
  })
})
