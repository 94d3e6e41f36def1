/** Models whose layers read each other's keys and values, from the file to the logits. */
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RunChunk, Runner } from '../../src/engine/runner.ts'
import { hyperparametersOf } from '../../src/engine/estimate.ts'
import { F32 } from '../../src/ggml/types.ts'
import { sharingValues } from '../../src/weights/gguf-sharing.ts'
import { openWeights } from '../../src/weights/open.ts'
import { BUNDLED_FOLDER, BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { editGguf } from '../support/edit-gguf.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { runnerLogits, withRunner } from '../support/runner.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())
const N = 32
const tokens = heldoutTokens(N)

const file = async (types: string, name: string, forceNodiag = false) => {
  const path = folder.file(`${name}.gguf`)
  const metadata = {
    'llama.attention.layer_types': { kind: 'str', value: types },
    'llama.attention.force_nodiag': { kind: 'bool', value: forceNodiag },
  } as const
  await editGguf(BUNDLED_GGUF, path, { metadata })
  return path
}

/** The bundled model as Hugging Face folder, with other fields in its config. */
function configured(name: string, fields: object): string {
  const path = folder.file(name)
  mkdirSync(path)
  for (const each of readdirSync(BUNDLED_FOLDER)) {
    if (each === 'config.json' || each.endsWith('.gguf')) continue
    symlinkSync(resolve(BUNDLED_FOLDER, each), join(path, each))
  }
  const config = JSON.parse(readFileSync(join(BUNDLED_FOLDER, 'config.json'), 'utf8')) as object
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, ...fields }))
  return path
}

/** Logits of every token, read in parts of these sizes. */
async function logitsBy(runner: Runner, setting: string, sizes: readonly number[]): Promise<Float32Array> {
  using sequence = runner.newSequence(64, setting)
  const all = new Float32Array(N * runner.shape.nVocab)
  let at = 0
  for (const size of sizes) {
    const [logits] = await runner.run([{ sequence, tokens: tokens.subarray(at, at + size), logits: 'all' }])
    all.set(logits!, at * runner.shape.nVocab)
    at += size
  }
  return all
}

const ones = (n: number) => Array.from({ length: n }, () => 1)

describe.each([false, true])('a llama whose layers 1 to 4 read layer 4, force_nodiag %s', (forceNodiag) => {
  let path = ''
  beforeAll(async () => {
    path = await file('0_4x4_5', `condensed-${forceNodiag}`, forceNodiag)
  })

  it('gives the same logits for a prompt, its pieces, and token by token', async () => {
    await withRunner(path, { cacheType: F32, type: F32 }, async (runner) => {
      const expected = await logitsBy(runner, `lckv:iterations=${N}`, ones(N))
      for (const sizes of [[N], [9, 11, 12], [1, N - 1], [20, ...ones(N - 20)]]) {
        expect(relativeError(await logitsBy(runner, `lckv:iterations=${N}`, sizes), expected)).toBeLessThan(TOLERANCE.f16)
      }
      const { nVocab } = runner.shape
      const errors: number[] = []
      for (const n of [1, 3, 7]) {
        const some = await logitsBy(runner, `lckv:iterations=${n}`, [N])
        const first = n * runner.shape.nVocab
        expect(relativeError(some.subarray(0, first), expected.subarray(0, first))).toBeLessThan(TOLERANCE.f16)
        errors.push(relativeError(some, expected))
      }
      expect(errors[0]).toBeGreaterThan(0.1)
      expect(errors[1]! < errors[0]! && errors[2]! < errors[1]!).toBe(true)
    })
  })

  it('gives each sequence of a step what it gets alone', async () => {
    await withRunner(path, { cacheType: F32, type: F32 }, async (runner) => {
      const settings = ['lckv', 'lckv+streaming:window=6', 'lckv:iterations=3', 'lckv+sparq:k=6,from=0', 'lckv']
      const before = [0, 12, 5, 20, 31]
      const counts = [20, 5, 9, 1, 1]
      const prepared = async (): Promise<(RunChunk & Disposable)[]> => {
        const parts: (RunChunk & Disposable)[] = []
        for (const [i, setting] of settings.entries()) {
          const sequence = runner.newSequence(64, setting)
          const [n, m] = [before[i]!, counts[i]!]
          if (n > 0) await runner.run([{ sequence, tokens: tokens.subarray(0, n), logits: 'none' }])
          const part = { sequence, tokens: tokens.subarray(n, n + m), logits: 'all' } as const
          parts.push({ ...part, [Symbol.dispose]: () => sequence[Symbol.dispose]() })
        }
        return parts
      }
      const alone: Float32Array[] = []
      for (const part of await prepared()) alone.push((await runner.run([part]))[0]!.slice())
      const together = await runner.run(await prepared())
      for (const [i, logits] of together.entries()) {
        expect(relativeError(logits!, alone[i]!), settings[i]).toBeLessThan(TOLERANCE.f16)
      }
    })
  })

  it('keeps half of the layers', async () => {
    await withRunner(path, {}, async (runner) => {
      await withRunner(BUNDLED_GGUF, {}, async (base) => {
        expect(runner.cacheBytesPerToken()).toBe(base.cacheBytesPerToken() / 2)
        expect(runner.denseBytes(512)).toBe(base.denseBytes(512) / 2)
      })
    })
  })
})

it('with layers that read themselves it is the ordinary model, to the bit', async () => {
  const path = await file('0_1_2_3_4_5', 'identity')
  expect(await runnerLogits(path, tokens)).toEqual(await runnerLogits(BUNDLED_GGUF, tokens))
})

it('the published Hugging Face configs say the same', async () => {
  const fields = {
    model_type: 'lckv-llama',
    layer_types: '0_4_4_4_4_5',
    force_nodiag: true,
    forward_passes: 5,
    sliding_window: 16,
  }
  const path = configured('hf', fields)
  using source = openWeights(path)
  const { shape } = hyperparametersOf(source)
  expect(shape).toMatchObject({
    nCtxTrain: 4096,
    sharing: { reads: [0, 4, 4, 4, 4, 5], forceNodiag: true, forwardPasses: 5, backwardPasses: 2 },
  })
  const gguf = await file('0_4x4_5', 'as-hf', true)
  // Rows of Wq and Wk lie in another order: rounding, which untrained layers carry on.
  const read = (of: string) =>
    withRunner(of, { cacheType: F32, type: F32 }, (runner) => logitsBy(runner, 'lckv:iterations=4', [N]))
  expect(relativeError(await read(path), await read(gguf))).toBeLessThan(10 * TOLERANCE.f16)
})

describe('a file', () => {
  it.each([
    ['0_4x3_5', 'attention.layer_types: it has 5 entries for 6 layers'],
    ['0_4s_4_4_4_5', 'has a sliding window, which is not supported'],
    ['0_9x4_5', 'layer 1 reads layer 9 of 6'],
  ])('with layer types %s is refused', async (types, reason) => {
    await expect(withRunner(await file(types, 'wrong'), {}, () => Promise.resolve())).rejects.toThrow(reason)
  })

  it('is written with what it is read from', async () => {
    const sharing = { reads: [0, 4, 4, 4, 4, 5], forceNodiag: true, forwardPasses: 3, backwardPasses: 1 }
    const path = folder.file('written.gguf')
    await editGguf(BUNDLED_GGUF, path, { metadata: Object.fromEntries(sharingValues(sharing)) })
    using source = openWeights(path)
    expect(hyperparametersOf(source).shape.sharing).toEqual(sharing)
  })

  it('without them has no lckv', async () => {
    await withRunner(BUNDLED_GGUF, {}, (runner) => {
      expect(() => runner.attention('lckv')).toThrow('each of its layers has keys and values of its own')
      return Promise.resolve()
    })
  })
})
