import { rmSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { F32 } from '../../src/ggml/types.ts'
import { synthesize, type SynthType } from '../../src/weights/synth.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { isComparable } from '../support/known.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { agreement } from '../support/runner.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

/** One layer is the shape's arithmetic; scripts/agreement.ts has more of them. Wide shapes read fewer tokens, to save time. */
const SHAPES = [
  { like: 'smollm2-135m', is: 'GQA 3:1, d 64, tied', layers: 2, nTokens: 2049 },
  { like: 'qwen2.5-0.5b', is: 'GQA 7:1, d 64, tied, biases', layers: 1, nTokens: 513 },
  { like: 'tinyllama-1.1b', is: 'GQA 8:1, d 64, separate output', layers: 1, nTokens: 257 },
  { like: 'llama-3.2-1b', is: 'GQA 4:1, d 64, tied, frequency factors', layers: 1, nTokens: 257 },
  { like: 'llama-7b', is: 'MHA, d 128, separate output', layers: 1, nTokens: 129 },
  { like: 'qwen3-0.6b', is: 'GQA 2:1, d 128, head norms', layers: 2, nTokens: 257 },
  // Past the window; the sixth layer is the first that does not slide.
  { like: 'gemma3-270m', is: 'GQA 4:1, d 256, window 512', layers: 7, nTokens: 701 },
  { like: 'gemma3-1b', is: 'GQA 4:1, d 256, window 512', layers: 1, nTokens: 129 },
]

describe.each(SHAPES)('random weights like $like ($is) agree with libllama', ({ like, layers, nTokens }) => {
  it.skipIf(!isComparable(like)).each<SynthType>(['f16', 'q8_0', 'q4_0', 'q4_k'])('as %s', async (type) => {
    const out = folder.file(`${like}-${type}.gguf`)
    await synthesize({ like, type, out, layers, vocab: 4096, tokenizerFrom: BUNDLED_GGUF })
    const result = await agreement(out, heldoutTokens(nTokens))
    rmSync(out)
    expect(result.top1).toBeGreaterThanOrEqual(0.995)
    expect(result.meanDelta).toBeLessThanOrEqual(0.01)
  })
})

// What random weights write says little (a token is followed by itself), so decoding is compared on given tokens. Nothing is
// rounded but by f16 weights: a window off by one makes 20 times the difference.
const EXACT = [
  { like: 'qwen3-0.6b', layers: 2, nTokens: 129 },
  { like: 'gemma3-270m', layers: 7, nTokens: 601 },
]
describe.each(EXACT)('random weights like $like, keys and values in f32, agree with libllama', ({ like, layers, nTokens }) => {
  it.skipIf(!isComparable(like)).each([512, 1])('in steps of %i', async (nUbatch) => {
    const out = folder.file(`${like}.gguf`)
    await synthesize({ like, type: 'f16', out, layers, vocab: 4096, tokenizerFrom: BUNDLED_GGUF })
    const result = await agreement(out, heldoutTokens(nTokens), { nUbatch, cacheType: F32, flashAttention: 'off' })
    rmSync(out)
    expect(result.top1).toBeGreaterThanOrEqual(0.995)
    expect(result.maxDelta).toBeLessThanOrEqual(0.002)
  })
})
