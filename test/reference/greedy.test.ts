import { expect, it } from 'vitest'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { referenceGreedy } from '../support/reference.ts'
import { runnerGreedy } from '../support/runner.ts'

const N_PROMPTS = 20
const N_NEW = 64

it(`${N_PROMPTS} prompts are continued with the same ${N_NEW} tokens as by libllama`, async () => {
  const text = heldoutTokens(N_PROMPTS * 250)
  // Of different lengths, so that caches end at different places in a tile.
  const prompts = Array.from({ length: N_PROMPTS }, (_, i) => text.slice(250 * i, 250 * i + 10 + 12 * i))
  const expected = referenceGreedy(BUNDLED_GGUF, prompts, N_NEW)
  expect(await runnerGreedy(BUNDLED_GGUF, prompts, N_NEW)).toEqual(expected)
  expect(new Set(expected.map((answer) => answer.join(' '))).size).toBe(N_PROMPTS)
})
