import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { Backend } from '../../src/ggml/backend.ts'
import type { Objective } from '../../src/train/objective.ts'
import { TRAIN_DEFAULTS } from '../../src/train/run-settings.ts'
import { progressText, type TrainProgress } from '../../src/train/train-progress.ts'
import { type RunOptions, train } from '../../src/train/train.ts'
import { TemporaryFolder } from '../support/reference.ts'
import { tinyLlama, tinyText } from '../support/tiny-llama.ts'

const backend = new Backend(1)
const folder = new TemporaryFolder()
afterAll(() => {
  folder[Symbol.dispose]()
  backend[Symbol.dispose]()
})

const OPTIONS = {
  ...TRAIN_DEFAULTS,
  steps: 12,
  nTokens: 8,
  nSequences: 2,
  accumulate: 2,
  rate: 2e-2,
  warmup: 2,
  measureEvery: 4,
  measureBatches: 2,
}

/** A fresh tiny model, trained; and its parameters afterwards. */
async function run(more: Partial<RunOptions> = {}) {
  using model = tinyLlama(backend)
  const options: RunOptions = {
    options: OPTIONS,
    text: tinyText(400),
    title: 'tiny',
    identity: { model: 'tiny' },
    checkpoint: null,
    curve: null,
    ...more,
  }
  const report = await train(backend, model.objective, options)
  return { report, weights: model.parameters.all().map(({ data }) => data.slice()) }
}

/** A signal that is given after a step. */
function stopAfter(step: number): Pick<RunOptions, 'signal' | 'onProgress'> {
  const controller = new AbortController()
  return { signal: controller.signal, onProgress: (progress) => progress.step === step && controller.abort() }
}

/** Everything but the time. */
const course = (curve: readonly object[]) => curve.map((point) => ({ ...point, seconds: 0 }))

test('the loss falls, on text it did not see too', async () => {
  const seen: TrainProgress[] = []
  const { report } = await run({ options: { ...OPTIONS, steps: 60 }, onProgress: (progress) => seen.push(progress) })
  const heldOut = report.curve.flatMap((point) => point.heldOut ?? [])
  expect(heldOut).toHaveLength(16) // before the first step, and every fourth
  expect(heldOut.at(-1)!).toBeLessThan(0.7 * heldOut[0]!)
  expect(report).toMatchObject({ step: 60, isStopped: false })
  expect(seen.map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
  expect(seen.at(-1)).toMatchObject({ steps: 60, heldOut: heldOut.at(-1), secondsLeft: 0 })
})

test('a run that was stopped and resumed, twice, ends bit by bit where one that was not does', async () => {
  const whole = await run()
  const checkpoint = folder.file('resumed.checkpoint')
  const first = await run({ checkpoint, ...stopAfter(3) })
  expect(first.report).toMatchObject({ step: 3, isStopped: true })
  expect((await run({ checkpoint, ...stopAfter(7) })).report).toMatchObject({ step: 7, isStopped: true })
  const last = await run({ checkpoint })
  expect(last.weights).toEqual(whole.weights)
  expect(course(last.report.curve)).toEqual(course(whole.report.curve))
  expect((await run({ checkpoint })).weights).toEqual(whole.weights) // nothing is left to do
})

test('a run that ends without warning is resumed from the last checkpoint', async () => {
  const checkpoint = folder.file('crashed.checkpoint')
  const onProgress = ({ step }: TrainProgress) => {
    if (step === 5) throw new Error('no power')
  }
  await expect(run({ checkpoint, checkpointSeconds: 0, onProgress })).rejects.toThrow('no power')
  const steps: number[] = []
  const resumed = await run({ checkpoint, onProgress: ({ step }) => void steps.push(step) })
  expect(steps[0]).toBe(5) // the step that was under way is done again
  expect(resumed.weights).toEqual((await run()).weights)
})

test('a seed decides the course', async () => {
  const [a, b, other] = [await run(), await run(), await run({ options: { ...OPTIONS, seed: 1 } })]
  expect(a.weights).toEqual(b.weights)
  expect(course(a.report.curve)).toEqual(course(b.report.curve))
  expect(a.weights).not.toEqual(other.weights)
})

test('two batches of one sequence are one of two', async () => {
  const weights = async (nSequences: number, accumulate: number) =>
    (await run({ options: { ...OPTIONS, steps: 2, nSequences, accumulate } })).weights.map((w) => [...w])
  const [a, b] = [(await weights(4, 1)).flat(), (await weights(1, 4)).flat()]
  expect(Math.max(...a.map((x, i) => Math.abs(x - b[i]!)))).toBeLessThan(1e-4)
})

test('a signal ends a step on the way, and nothing of it stays', async () => {
  const controller = new AbortController()
  controller.abort()
  using model = tinyLlama(backend)
  const before = model.parameters.all().map(({ data }) => data.slice())
  const { report, weights } = await run({ signal: controller.signal })
  expect(report).toMatchObject({ step: 0, isStopped: true })
  expect(weights).toEqual(before)
})

test('gradients longer than the limit are shortened to it', async () => {
  // One step of AdamW has the same length for any gradient; a decay of the moments shows in the second.
  const first = async (clip: number) => (await run({ options: { ...OPTIONS, clip, steps: 3 } })).report.curve
  const [free, short] = [await first(0), await first(1e-3)]
  expect(free[1]).toEqual({ ...short[1]!, seconds: free[1]!.seconds })
  expect(free[3]!.loss).not.toBe(short[3]!.loss)
})

test('the curve is kept as JSON and as a picture', async () => {
  const curve = folder.file('curve')
  const { report } = await run({ curve, title: 'a <tiny> run' })
  const { points } = JSON.parse(readFileSync(`${curve}.json`, 'utf8'))
  expect(points).toEqual(report.curve)
  const svg = readFileSync(`${curve}.svg`, 'utf8')
  expect(svg).toMatch(/^<svg .*<\/svg>\n$/s)
  expect(svg).toContain('a &#60;tiny&#62; run')
  expect(svg.match(/<circle/g)).toHaveLength(4)
  expect(svg).not.toMatch(/NaN|Infinity/)
})

test('a loss that is no number ends the run, which goes on as if it had not been when that is mended', async () => {
  const checkpoint = folder.file('diverged.checkpoint')
  await run({ checkpoint, ...stopAfter(2) })
  using model = tinyLlama(backend)
  const right = model.objective
  const objective: Objective = { ...right, loss: (g, batch) => g.log(g.scale(right.loss(g, batch), -1)) }
  const options = { options: OPTIONS, text: tinyText(400), title: '', identity: { model: 'tiny' }, checkpoint, curve: null }
  const failed = train(backend, objective, options)
  await expect(failed).rejects.toMatchObject({ code: 'training_diverged', fields: { step: 3 } })
  expect((await run({ checkpoint })).weights).toEqual((await run()).weights)
})

test.each<[string, Partial<RunOptions>, RegExp]>([
  ['another seed', { options: { ...OPTIONS, seed: 3 } }, /seed was 0 and is 3/],
  ['another text', { text: tinyText(300) }, /text was "tiny 400" and is "tiny 300"/],
  ['another model', { identity: { model: 'other' } }, /model was "tiny" and is "other"/],
])('a checkpoint of %s is refused', async (name, more, message) => {
  const checkpoint = folder.file(`${name}.checkpoint`)
  await run({ checkpoint, ...stopAfter(1) })
  await expect(run({ checkpoint, ...more })).rejects.toThrow(message)
})

test('a file that is no checkpoint is refused, and left alone', async () => {
  const checkpoint = folder.file('text.checkpoint')
  writeFileSync(checkpoint, 'not a checkpoint')
  await expect(run({ checkpoint })).rejects.toMatchObject({ code: 'model_invalid' })
  expect(readFileSync(checkpoint, 'utf8')).toBe('not a checkpoint')
})

test('a place that cannot be written to is an error before the work', async () => {
  const steps: number[] = []
  const failed = run({ checkpoint: folder.file('none/such.checkpoint'), onProgress: ({ step }) => steps.push(step) })
  await expect(failed).rejects.toMatchObject({ code: 'file_error' })
  expect(steps).toEqual([])
})

test('a full disk ends the run with an error, the checkpoint before is as it was, and nothing half-written stays', async () => {
  mkdirSync(folder.file('full'))
  const checkpoint = folder.file('full/run.checkpoint')
  await run({ checkpoint, ...stopAfter(2) })
  const before = readFileSync(checkpoint)
  const program = folder.file('full.mts')
  const from = (path: string) => `'${process.cwd()}/${path}'`
  writeFileSync(
    program,
    `import { Backend } from ${from('src/ggml/backend.ts')}
    import { train } from ${from('src/train/train.ts')}
    import { tinyLlama, tinyText } from ${from('test/support/tiny-llama.ts')}
    const backend = new Backend(1)
    const options = { options: ${JSON.stringify(OPTIONS)}, text: tinyText(400), title: '', identity: { model: 'tiny' }, curve: null }
    try { await train(backend, tinyLlama(backend).objective, { ...options, checkpoint: '${checkpoint}' }) }
    catch (error) { console.log(error.code, error.fields.reason) }`,
  )
  // A limit on the size of files, 16 blocks of at most 1 KiB, stands in for the end of the disk.
  const { stdout } = spawnSync('sh', ['-c', `ulimit -f 16; exec node --import tsx '${program}'`], { encoding: 'utf8' })
  expect(stdout).toMatch(/^file_error EFBIG/)
  expect(readFileSync(checkpoint).equals(before)).toBe(true)
  expect(readdirSync(folder.file('full'))).toEqual(['run.checkpoint'])
})

test.each([
  [{ steps: -1 }, /steps must be a whole number from 0/],
  [{ nTokens: 2.5 }, /nTokens must be/],
  [{ rate: 0 }, /rate must be/],
  [{ beta1: 1 }, /beta1 must be/],
  [{ seed: -1 }, /seed must be/],
  [{ clip: Number.NaN }, /clip must be/],
])('%j is refused', async (wrong, message) => {
  await expect(run({ options: { ...OPTIONS, ...wrong } })).rejects.toThrow(message)
})

test('a token that the model does not have is refused', async () => {
  const text = tinyText(400)
  text.train[100] = 11
  await expect(run({ text })).rejects.toThrow(/gives token 11, and the model has 11/)
})

test('progress is one line', () => {
  const progress = { step: 120, steps: 1000, loss: 2.9134, heldOut: 3.0121, tokensPerSecond: 1240.2, secondsLeft: 726 }
  expect(progressText(progress)).toBe('step 120 of 1000, loss 2.913, held-out 3.012, 1240 tokens/s, 12 min left')
  expect(progressText({ ...progress, step: 0, loss: null, heldOut: null, tokensPerSecond: 0 })).toBe('step 0 of 1000')
})
