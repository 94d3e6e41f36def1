import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { F32 } from '../../src/ggml/types.ts'
import { ARCHITECTURES } from '../../src/models/index.ts'
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

const read = (path: string) => JSON.parse(readFileSync(path, 'utf8'))

function isKnown(folder: string): boolean {
  const type: string = read(join(folder, 'config.json')).model_type
  return ARCHITECTURES.some(({ huggingface }) => (huggingface as readonly string[]).includes(type))
}

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

async function expectSame(folder: string, { tokens, top, positions, logits }: Vectors): Promise<void> {
  const ours = await runnerLogits(folder, Int32Array.from(tokens), { cacheType: F32 })
  expect(ours[0]!.length).toBe(logits[0]!.length)
  expect(
    relativeError(
      positions.map((i) => ours[i]!),
      logits,
    ),
  ).toBeLessThanOrEqual(TOLERANCE)
  const same = ours.filter((row, i) => argmax(row) === top[i]).length
  expect(same / tokens.length).toBeGreaterThanOrEqual(0.995)
}

const folders = readdirSync(FOLDER).map((name) => join(FOLDER, name))

describe.each(folders.map((folder) => [basename(folder), folder]))('a small %s gives what transformers gives', (_, folder) => {
  const vectors: Vectors = read(join(folder, 'vectors.json'))
  const known = it.skipIf(!isKnown(folder))

  known('logits', () => expectSame(folder, vectors))

  known('token by token, the greedy continuation', async () => {
    const { tokens, greedy } = vectors
    expect(await runnerGreedy(folder, [Int32Array.from(tokens)], greedy.length, { cacheType: F32 })).toEqual([greedy])
  })

  const otherWords = readdirSync(folder).filter((name) => /^config\..+\.json$/.test(name))
  for (const config of otherWords) {
    known(`logits, also as ${config} says it`, async () => {
      using copy = new TemporaryFolder()
      copyFileSync(join(folder, config), copy.file('config.json'))
      copyFileSync(join(folder, 'model.safetensors'), copy.file('model.safetensors'))
      await expectSame(copy.path, vectors)
    })
  }
})
