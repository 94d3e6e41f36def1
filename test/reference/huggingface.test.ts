import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../src/text/load.ts'
import { openWeights } from '../../src/weights/open.ts'
import { BUNDLED_FOLDER, BUNDLED_GGUF, HELDOUT, heldoutTokens } from '../support/bundled.ts'
import { quantize, referenceLogits, referenceTokens, TemporaryFolder } from '../support/reference.ts'
import { compare, runnerLogits } from '../support/runner.ts'

const Q8_0 = 8
const tokens = heldoutTokens(1025)

describe('the bundled model as a Hugging Face folder', () => {
  it('gives the token ids of the GGUF file, which are libllama’s', () => {
    const text = readFileSync(HELDOUT, 'utf8').slice(0, 100_000)
    const [folder, file] = [BUNDLED_FOLDER, BUNDLED_GGUF].map((path) => {
      using source = openWeights(path)
      using tokenizer = loadTokenizer(source)
      return tokenizer.encode(text, { addSpecial: false })
    })
    expect(folder!.length).toBeGreaterThan(20_000)
    expect(folder).toEqual(file)
    expect(file).toEqual(referenceTokens(BUNDLED_GGUF, text))
  })

  it('gives the logits of the GGUF file', async () => {
    const ours = await runnerLogits(BUNDLED_FOLDER, tokens)
    // Rows of Wq and Wk lie in another order, so the products of a head are summed in another order: rounding, no more.
    const { top1, maxDelta } = compare(tokens, ours, await runnerLogits(BUNDLED_GGUF, tokens))
    expect(top1).toBeGreaterThanOrEqual(0.999)
    expect(maxDelta).toBeLessThanOrEqual(0.005)
    expect(compare(tokens, ours, referenceLogits(BUNDLED_GGUF, tokens)).maxDelta).toBeLessThanOrEqual(0.005)
  })

  // Differences as small as above change which of two neighbouring values an activation is rounded to: libllama with and
  // without flash attention differs as much from itself.
  it('quantised while loading gives about the logits of the quantised GGUF file', async () => {
    const ours = await runnerLogits(BUNDLED_FOLDER, tokens, { type: Q8_0 })
    const { top1, meanDelta } = compare(tokens, ours, await runnerLogits(BUNDLED_GGUF, tokens, { type: Q8_0 }))
    expect(top1).toBeGreaterThanOrEqual(0.98)
    expect(meanDelta).toBeLessThanOrEqual(0.02)
  })
})

it('quantising while loading is what libllama’s quantiser does', async () => {
  using folder = new TemporaryFolder()
  const path = folder.file('q8_0.gguf')
  quantize(BUNDLED_GGUF, path, 'q8_0')
  const ours = await runnerLogits(BUNDLED_GGUF, tokens, { type: Q8_0 })
  expect(compare(tokens, ours, referenceLogits(path, tokens)).maxDelta).toBeLessThanOrEqual(1e-5)
})
