import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { load } from '../../src/engine/model.ts'
import { finetune } from '../../src/train/finetune.ts'
import type { TrainFiles } from '../../src/train/train-file.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF, HELDOUT } from '../support/bundled.ts'
import { TemporaryFolder, TEST_THREADS } from '../support/reference.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())
beforeAll(() => writeFileSync(folder.file('text.txt'), readFileSync(HELDOUT, 'utf8').slice(0, 40_000)))

const options = (more: Partial<TrainFiles>): TrainFiles => ({
  model: BUNDLED_GGUF,
  file: folder.file('text.txt'),
  out: folder.file('m.gguf'),
  nThreads: TEST_THREADS,
  nTokens: 64,
  nSequences: 2,
  steps: 8,
  warmup: 2,
  rate: 1e-4,
  heldOut: 0.1,
  measureBatches: 8,
  ...more,
})

test('the bundled model learns more: the loss on text it did not see falls, and the file it becomes loads and answers', async () => {
  const report = await finetune(options({}))
  expect(report).toMatchObject({ step: 8, isStopped: false })
  const heldOut = report.curve.flatMap((point) => point.heldOut ?? [])
  expect(heldOut.at(-1)!).toBeLessThan(heldOut[0]! - 0.02)

  const path = folder.file('m.gguf')
  using base = openGguf(BUNDLED_GGUF)
  using trained = openGguf(path)
  expect([...trained.tensors.values()].map(({ name, type, ne }) => [name, type, ne])).toEqual(
    [...base.tensors.values()].map(({ name, type, ne }) => [name, type, ne]),
  )
  expect(trained.metadataKeys()).toEqual(base.metadataKeys())
  await using model = await load(path, { nThreads: TEST_THREADS })
  const prompt = 'The access code for the calm otter is 40412.\nWhat is the access code for the calm otter?'
  const { text } = await model.complete({ messages: [{ role: 'user', content: prompt }], temperature: 0, maxTokens: 16 })
  expect(text).toContain('40412')
})

test('stopped in the middle of a step and begun again, it writes the same file', async () => {
  const out = folder.file('again.gguf')
  const controller = new AbortController()
  const onProgress = ({ step }: { step: number }) => {
    if (step === 3) setTimeout(() => controller.abort(), 30)
  }
  const stopped = await finetune(options({ out, signal: controller.signal, onProgress }))
  expect(stopped).toMatchObject({ isStopped: true, step: 3 })
  expect(
    readdirSync(folder.file(''))
      .filter((name) => name.startsWith('again'))
      .toSorted(),
  ).toEqual(['again.gguf.checkpoint', 'again.gguf.curve.json', 'again.gguf.curve.svg'])
  const report = await finetune(options({ out }))
  expect(report.isStopped).toBe(false)
  expect(readFileSync(out).equals(readFileSync(folder.file('m.gguf')))).toBe(true)
})

test.each<[string, Partial<TrainFiles>, string]>([
  ['a window beyond the context', { nTokens: 5000 }, 'usage'],
  ['a model that is not there', { model: 'none.gguf' }, 'model_not_found'],
  ['a text that is not there', { file: 'none.txt' }, 'file_error'],
  ['a text shorter than a window', { nTokens: 4096, heldOut: 0.9 }, 'data_unusable'],
])('%s is refused, and nothing is written', async (_, wrong, code) => {
  const before = readdirSync(folder.file(''))
  await expect(finetune(options({ ...wrong, out: folder.file('refused.gguf') }))).rejects.toMatchObject({ code })
  expect(readdirSync(folder.file(''))).toEqual(before)
})
