import { afterAll, describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { type Ftype, quantize, TemporaryFolder } from '../support/reference.ts'
import { agreement } from '../support/runner.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

const tokens = heldoutTokens(2049)

/** libllama's own quantiser makes the file, once. */
function bundledAs(ftype: Ftype): string {
  const path = folder.file(`${ftype}.gguf`)
  quantize(BUNDLED_GGUF, path, ftype)
  return path
}

describe('the bundled model agrees with libllama on 2,048 positions of real text', () => {
  it.each<Ftype>(['f16', 'q8_0', 'q4_0', 'q4_k_s', 'q4_k_m', 'q6_k', 'bf16'])('as %s', async (ftype) => {
    const result = await agreement(ftype === 'f16' ? BUNDLED_GGUF : bundledAs(ftype), tokens)
    expect(result.positions).toBe(2048)
    expect(result.top1).toBeGreaterThanOrEqual(0.995)
    expect(result.meanDelta).toBeLessThanOrEqual(0.01)
  })

  // libllama decodes without flash attention here: with it, it takes four times as long. Heads of 32 in f16 are summed in
  // another order than its own (pieces.ts, shortScores).
  it.each([
    ['', F16, 0.997],
    [', with keys and values in f32, where no rounding of the cache can hide a mistake', F32, 0.999],
  ])('token by token, as decoding reads it%s', async (_, cacheType, leastTop1) => {
    const result = await agreement(BUNDLED_GGUF, tokens.subarray(0, 1025), { nUbatch: 1, cacheType, flashAttention: 'off' })
    expect(result.positions).toBe(1024)
    expect(result.top1).toBeGreaterThanOrEqual(leastTop1)
    expect(result.maxDelta).toBeLessThanOrEqual(0.02)
  })
})
