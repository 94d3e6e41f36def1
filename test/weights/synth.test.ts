import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { typeName } from '../../src/ggml/types.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { SYNTH_SHAPES } from '../../src/weights/synth-shapes.ts'
import { ropeDivisors, synthTensors } from '../../src/weights/synth-tensors.ts'
import { SYNTH_TYPES, synthesize, type SynthOptions, type SynthType } from '../../src/weights/synth.ts'
import { referenceLogits, referenceTokens, TemporaryFolder } from '../support/reference.ts'

const DEMO = 'models/kvasir-demo/kvasir-demo-f16.gguf'
const TEXT = 'The access code for the calm otter is 40412.'
const folder = new TemporaryFolder()
const out = folder.file('m.gguf')
afterAll(() => folder[Symbol.dispose]())

const synth = (options: Partial<SynthOptions>) =>
  synthesize({ like: 'smollm2-135m', type: 'q8_0', layers: 1, vocab: 4096, out, tokenizerFrom: DEMO, ...options })

describe('a model of random weights', () => {
  const cases: [string, SynthType, number][] = [
    ...Object.keys(SYNTH_TYPES).map((type): [string, SynthType, number] => ['smollm2-135m', type as SynthType, 1]),
    ['tinyllama-1.1b', 'q4_k', 1],
    ['llama-3.2-1b', 'q4_0', 1],
    ['qwen2.5-0.5b', 'q8_0', 1],
    ['llama-7b', 'q4_0', 1],
    ['qwen3-0.6b', 'f16', 2],
    ['qwen3-0.6b', 'q4_k', 3],
    ['gemma3-270m', 'f16', 7], // the sixth layer is the first that does not slide
    ['gemma3-270m', 'q4_0', 2],
    ['gemma3-1b', 'q8_0', 2],
  ]
  it.each(cases)('like %s in %s, layers: %i, is loaded and run by llama.cpp', async (like, type, layers) => {
    const { nBytes } = await synth({ like, type, layers })
    expect(readFileSync(out).length).toBe(nBytes)
    const tokens = referenceTokens(out, TEXT)
    expect([...tokens]).toEqual([...referenceTokens(DEMO, TEXT)])
    const logits = referenceLogits(out, tokens).at(-1)!
    const mean = logits.reduce((sum, x) => sum + x, 0) / logits.length
    const deviation = Math.sqrt(logits.reduce((sum, x) => sum + (x - mean) ** 2, 0) / logits.length)
    expect(deviation).toBeGreaterThan(0.1) // NaN and all the same number fail here
    expect(deviation).toBeLessThan(10)
  })

  it('has the vocabulary of the real one, padded with tokens that no text becomes', async () => {
    await synth({ vocab: undefined })
    using source = openGguf(out)
    const tokens = source.metadata('tokenizer.ggml.tokens') as string[]
    const types = source.metadata('tokenizer.ggml.token_type') as number[]
    expect([tokens.length, types.length, source.metadata('llama.vocab_size')]).toEqual([49_152, 49_152, 49_152])
    expect([tokens[4096], types[4096], types[4095]]).toEqual(['<|unused_4096|>', 5, 3])
    expect(referenceTokens(out, 'a<|unused_4096|>').every((token) => token < 4096)).toBe(true)
  })

  it('takes context, layers and vocabulary as asked', async () => {
    await synth({ ctx: 123_456, layers: 3, vocab: 5000 })
    using source = openGguf(out)
    expect(source.metadata('llama.context_length')).toBe(123_456)
    expect(source.metadata('llama.block_count')).toBe(3)
    expect(source.tensors.get('token_embd.weight')!.ne).toEqual([576, 5000, 1, 1])
    expect(source.tensors.has('blk.2.attn_q.weight')).toBe(true)
    expect(source.tensors.has('blk.3.attn_q.weight')).toBe(false)
  })

  it('has no keys and values in layers that read another layer’s', async () => {
    await synth({ layers: 4, layerTypes: '0_2x2_3' })
    using source = openGguf(out)
    expect(source.metadata('llama.attention.layer_types')).toBe('0_2x2_3')
    const has = (what: string) => [0, 1, 2, 3].map((il) => source.tensors.has(`blk.${il}.attn_${what}.weight`))
    expect([has('q'), has('k'), has('v')]).toEqual([
      [true, true, true, true],
      [true, false, true, true],
      [true, false, true, true],
    ])
    await expect(synth({ layers: 4, layerTypes: '0_1' })).rejects.toThrow('layer types: it has 2 entries for 4 layers')
  })

  it('has the parts of its architecture', async () => {
    const parts = (path: string) => {
      using source = openGguf(path)
      return [...source.tensors.keys()].filter((name) => !name.startsWith('blk.') || name.startsWith('blk.1.'))
    }
    await synth({ like: 'opt-125m', layers: 2 })
    expect(parts(out)).toContain('position_embd.weight')
    expect(parts(out)).toEqual(expect.arrayContaining(['blk.1.ffn_norm.bias', 'blk.1.attn_output.bias', 'output_norm.bias']))
    expect(parts(out).filter((name) => name.includes('gate'))).toEqual([])
    await synth({ like: 'gemma3-270m', layers: 2 })
    expect(parts(out)).toEqual(expect.arrayContaining(['blk.1.attn_k_norm.weight', 'blk.1.post_ffw_norm.weight']))
    expect(parts(out).filter((name) => name.endsWith('bias') || name.startsWith('output.'))).toEqual([])
    using source = openGguf(out)
    expect(source.metadata('gemma3.attention.sliding_window')).toBe(512)
    expect(source.metadata('gemma3.rope.freq_base')).toBe(1_000_000)
  })

  it('falls back to q8_0 where rows are not whole blocks, and keeps vectors in f32', async () => {
    await synth({ like: 'qwen2.5-0.5b', type: 'q4_k' })
    using source = openGguf(out)
    const type = (name: string) => typeName(source.tensors.get(name)!.type)
    expect(['token_embd.weight', 'blk.0.ffn_down.weight', 'blk.0.attn_norm.weight', 'blk.0.attn_q.bias'].map(type)).toEqual([
      'q8_0', // rows of 896
      'q4_k', // rows of 4864
      'f32',
      'f32',
    ])
  })

  it('has norms near one', async () => {
    await synth({})
    using source = openGguf(out)
    const { offset, nBytes } = source.tensors.get('blk.0.attn_norm.weight')!
    const norms = new Float32Array(readFileSync(out).buffer.slice(offset, offset + nBytes))
    expect(norms.reduce((sum, x) => sum + x, 0) / norms.length).toBeCloseTo(1, 2)
    expect(new Set(norms).size).toBeGreaterThan(500)
  })

  it('is the same file from the same seed', async () => {
    await synth({ seed: 3 })
    const first = readFileSync(out)
    await synth({ seed: 3 })
    expect(readFileSync(out).equals(first)).toBe(true)
    await synth({ seed: 4 })
    expect(readFileSync(out).equals(first)).toBe(false)
  })
})

describe('asking for one', () => {
  const leftovers = () => readdirSync(folder.path).filter((name) => name !== 'm.gguf')

  it.each<[Partial<SynthOptions>, RegExp]>([
    [{ like: 'gpt-5' }, /no shape 'gpt-5'; there are tinyllama-1.1b, /],
    [{ like: 'constructor' }, /no shape/],
    [{ type: 'q2_k' as SynthType }, /no type 'q2_k'; there are f16, q8_0, q4_0, q4_k/],
    [{ like: 'qwen3-0.6b', layerTypes: '0' }, /layer types are for llamas/],
    [{ vocab: 4095 }, /vocab must be at least 4096/],
    [{ vocab: 5000.5 }, /vocab must be a whole number/],
    [{ layers: 0 }, /layers must be a whole number from 1 to 512/],
    [{ ctx: -1 }, /ctx must be a whole number/],
    [{ seed: Number.NaN }, /the seed must be a whole number/],
  ])('with %o is refused', async (options, reason) => {
    await expect(synth({ ...options, out: folder.file('refused.gguf') })).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringMatching(reason),
    })
    expect(leftovers()).toEqual([])
  })

  it('reports progress up to one', async () => {
    const seen: number[] = []
    await synth({ onProgress: (fraction) => seen.push(fraction) })
    expect(seen.at(-1)).toBe(1)
    expect(seen).toEqual(seen.toSorted((a, b) => a - b))
  })

  it('and stopping leaves no file', async () => {
    const stop = new AbortController()
    const work = synth({
      out: folder.file('stopped.gguf'),
      signal: stop.signal,
      onProgress: (done) => done > 0.3 && stop.abort(),
    })
    await expect(work).rejects.toMatchObject({ code: 'aborted' })
    expect(leftovers()).toEqual([])
  })
})

describe('the shapes', () => {
  it.each([
    ['tinyllama-1.1b', 1_100_048_384],
    ['llama-3.2-1b', 1_235_814_400],
    ['qwen2.5-0.5b', 494_032_768],
    ['smollm2-135m', 134_515_008],
    ['llama-7b', 6_738_415_616],
    ['qwen3-0.6b', 596_049_920],
    ['gemma3-270m', 268_098_176],
    ['gemma3-1b', 999_885_952],
    ['opt-125m', 125_237_760], // published: 1,536 more, two rows of positions that are never read
  ])('%s has the parameters of the published model', (name, published) => {
    const weights = synthTensors(SYNTH_SHAPES.get(name)!).filter(({ fill }) => fill !== 'rope')
    expect(weights.reduce((n, { ne }) => n + ne.reduce((a, b) => a * b), 0)).toBe(published)
  })

  it('llama-3.2-1b slows down long wavelengths 32-fold and keeps short ones', () => {
    const divisors = ropeDivisors(SYNTH_SHAPES.get('llama-3.2-1b')!)
    expect(divisors.length).toBe(32)
    expect(divisors[0]).toBe(1)
    expect(divisors.at(-1)).toBe(32)
    expect([...divisors]).toEqual([...divisors].toSorted((a, b) => a - b))
  })
})
