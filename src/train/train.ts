/**
 * The loop of every training run: batches of text, gradients, a step of AdamW, again; with measurements on held-out text, a
 * curve, and checkpoints from which a stopped run goes on to exactly where it would have come. What is learnt, and how far
 * from right it is, is the objective's business.
 */
import { setImmediate } from 'node:timers/promises'
import { KvasirError } from '../core/errors.ts'
import type { Backend } from '../ggml/backend.ts'
import { AdamW, gradientNorm } from './adamw.ts'
import { hasCheckpoint, loadCheckpoint, type RunSettings, type RunState, saveCheckpoint } from './checkpoint.ts'
import { type Point, writeCurve } from './curve.ts'
import { Measure } from './measure.ts'
import type { Objective } from './objective.ts'
import { checkOptions, type TrainOptions } from './run-settings.ts'
import type { TrainProgress } from './train-progress.ts'
import { learningRate } from './schedule.ts'
import type { TrainText } from './text.ts'
import { Windows } from './windows.ts'

export interface RunOptions {
  readonly options: TrainOptions
  readonly text: TrainText
  /** Words for the curve. */
  readonly title: string
  /** What else decides the course: the base model, the layers. A checkpoint of other settings is refused. */
  readonly identity: RunSettings
  /** A checkpoint's path; a run that finds one goes on from it. Null to keep none. */
  readonly checkpoint: string | null
  readonly checkpointSeconds?: number
  /** The curve's path, without .json and .svg; null to draw none. */
  readonly curve: string | null
  readonly onProgress?: ((progress: TrainProgress) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

export interface TrainReport extends RunState {
  /** True if it was stopped before its last step. */
  readonly isStopped: boolean
  readonly tokensPerSecond: number
  /** Of the part of the run that this tells of. */
  readonly steps: number
  readonly checkpoint: string | null
}

/** With the time of a step this stays below a minute. */
const CHECKPOINT_SECONDS = 30

/**
 * Runs to the last step, or to the signal: then it keeps the steps done in the checkpoint and gives what it has.
 * Errors: `usage`, `data_unusable`, `checkpoint_mismatch`, `training_diverged`, `file_error` (the checkpoint before is then as it was).
 */
export async function train(backend: Backend, objective: Objective, run: RunOptions): Promise<TrainReport> {
  checkOptions(run.options)
  checkTokens(run.text, objective.nVocab)
  const { options, text, signal, checkpointSeconds = CHECKPOINT_SECONDS } = run
  const { parameters } = objective
  const settings: RunSettings = { ...run.identity, ...options, text: text.hash }
  let state: RunState = { step: 0, seconds: 0, curve: [] }
  if (run.checkpoint !== null && hasCheckpoint(run.checkpoint)) state = loadCheckpoint(run.checkpoint, parameters, settings)

  using optimiser = new AdamW(backend, parameters.trained(), options)
  using measure = new Measure(backend, objective, options)
  using gradients = measure.withGradients()
  const windows = new Windows(text.train, { nTokens: options.nTokens, seed: options.seed, bos: text.bos })
  const perStep = options.nSequences * options.accumulate
  const start = { step: state.step, seconds: state.seconds, at: performance.now() }
  const seconds = () => start.seconds + (performance.now() - start.at) / 1000
  const speed = () => ((state.step - start.step) * perStep * options.nTokens) / Math.max(1e-9, seconds() - start.seconds)

  const save = async (): Promise<void> => {
    state = { ...state, seconds: seconds() }
    if (run.checkpoint !== null) await saveCheckpoint(run.checkpoint, parameters, { settings, state })
    if (run.curve !== null) await writeCurve(run.curve, run.title, state.curve)
  }
  const heldOut = () => measure.heldOut(text, signal)

  /** One step; null if it was stopped on the way. */
  const step = async (): Promise<Point | null> => {
    optimiser.clear()
    let loss = 0
    for (let i = 0; i < options.accumulate; i++) {
      const first = (state.step * options.accumulate + i) * options.nSequences
      const batch = Array.from({ length: options.nSequences }, (_, b) => windows.at(first + b))
      const part = await gradients.compute(batch, signal)
      if (part === null) return null
      loss += part / options.accumulate
    }
    const norm = gradientNorm(parameters.trained())
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) throw new KvasirError('training_diverged', { step: state.step + 1 })
    const rate = learningRate(state.step, options)
    const scale = options.clip > 0 && norm > options.clip ? options.clip / norm : 1
    await optimiser.step({ nDone: state.step, rate, scale })
    return { step: state.step + 1, loss, heldOut: null, rate, gradientNorm: norm, seconds: seconds() }
  }

  const curve = [...state.curve]
  state = { ...state, curve }
  let lastHeldOut = curve.findLast((point) => point.heldOut !== null)?.heldOut ?? null
  if (curve.length === 0) {
    lastHeldOut = await heldOut()
    if (lastHeldOut !== null) curve.push({ ...START, heldOut: lastHeldOut })
  }
  await save() // what cannot be written is known before the work
  let saved = performance.now()
  while (state.step < options.steps && !signal?.aborted) {
    const point = await step()
    if (point === null) break
    const isDue = point.step % options.measureEvery === 0 || point.step === options.steps
    state = { ...state, step: point.step }
    const measured = isDue ? await heldOut() : null
    lastHeldOut = measured ?? lastHeldOut
    curve.push({ ...point, heldOut: measured })
    const secondsLeft = ((options.steps - state.step) * perStep * options.nTokens) / speed()
    run.onProgress?.({ ...point, heldOut: lastHeldOut, steps: options.steps, tokensPerSecond: speed(), secondsLeft })
    if ((performance.now() - saved) / 1000 >= checkpointSeconds) {
      await save()
      saved = performance.now()
    }
    await setImmediate() // a turn for the signal
  }
  await save()
  const { steps } = options
  return { ...state, steps, checkpoint: run.checkpoint, isStopped: state.step < steps, tokensPerSecond: speed() }
}

const START: Point = { step: 0, loss: null, heldOut: null, rate: 0, gradientNorm: 0, seconds: 0 }

/** ggml ends the process at a row that the embedding does not have. */
function checkTokens({ path, train, heldOut }: TrainText, nVocab: number): void {
  for (const tokens of [train, ...heldOut]) {
    const wrong = tokens.find((token) => token < 0 || token >= nVocab)
    if (wrong === undefined) continue
    const reason = `the tokenizer gives token ${wrong}, and the model has ${nVocab}`
    throw new KvasirError('data_unusable', { path, reason })
  }
}
