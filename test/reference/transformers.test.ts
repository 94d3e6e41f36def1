import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { F32 } from '../../src/ggml/types.ts'
import { isKnownFolder } from '../support/known.ts'
import { argmax, TemporaryFolder } from '../support/reference.ts'
import { runnerGreedy, runnerLogits } from '../support/runner.ts'

/** What transformers computed; scripts/reference makes these folders. */
interface Vectors {
  readonly tokens: number[]
  /** The likeliest token after each of them. */
  readonly top: number[]
  readonly greedy: number[]
  /** Indices of tokens, and the logits after each. */
  readonly positions: number[]
  readonly logits: number[][]
}

const FOLDER = fileURLToPath(new URL('vectors', import.meta.url))
// Sums in another order differ by some 1e-6. ggml rounds the argument and the result of its GELU to f16, which makes 5e-4.
const TOLERANCE = 1e-3

/** Length of the difference, in lengths of the reference. */
function relativeError(ours: readonly Float32Array[], reference: readonly number[][]): number {
  let [difference, length] = [0, 0]
  for (const [i, row] of reference.entries()) {
    for (const [j, x] of row.entries()) {
      difference += (ours[i]![j]! - x) ** 2
      length += x ** 2
    }
  }
  return Math.sqrt(difference / length)
}

/** The error of the logits, and the share of positions where the likeliest token is the same. */
async function agreement(folder: string, { tokens, top, positions, logits }: Vectors) {
  const ours = await runnerLogits(folder, Int32Array.from(tokens), { cacheType: F32 })
  const error = relativeError(
    positions.map((i) => ours[i]!),
    logits,
  )
  return { error, top1: ours.filter((row, i) => argmax(row) === top[i]).length / tokens.length }
}

const folders = readdirSync(FOLDER).map((name) => join(FOLDER, name))

describe.each(folders.map((folder) => [basename(folder), folder]))('a small %s gives what transformers gives', (_, folder) => {
  const vectors: Vectors = JSON.parse(readFileSync(join(folder, 'vectors.json'), 'utf8'))
  const unknown = !isKnownFolder(folder)

  it.skipIf(unknown)('logits', async () => {
    const { error, top1 } = await agreement(folder, vectors)
    expect(error).toBeLessThanOrEqual(TOLERANCE)
    expect(top1).toBeGreaterThanOrEqual(0.995)
  })

  it.skipIf(unknown)('token by token, the greedy continuation', async () => {
    const { tokens, greedy } = vectors
    expect(await runnerGreedy(folder, [Int32Array.from(tokens)], greedy.length, { cacheType: F32 })).toEqual([greedy])
  })

  const otherWords = readdirSync(folder).filter((name) => /^config\..+\.json$/.test(name))
  for (const config of otherWords) {
    it.skipIf(unknown)(`logits, also as ${config} says it`, async () => {
      using copy = new TemporaryFolder()
      copyFileSync(join(folder, config), copy.file('config.json'))
      copyFileSync(join(folder, 'model.safetensors'), copy.file('model.safetensors'))
      expect((await agreement(copy.path, vectors)).error).toBeLessThanOrEqual(TOLERANCE)
    })
  }
})
