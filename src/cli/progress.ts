/**
 * One line of progress on stderr, and only where a person watches: on a terminal. Training runs for hours, so elsewhere it
 * says every half minute where it is.
 */
import type { PromptProgress } from '../engine/generate-options.ts'
import { progressText, type TrainProgress } from '../train/train-progress.ts'

const QUICK_MS = 500 // what takes less needs no progress
const LINE_MS = 30_000

export class Progress implements Disposable {
  readonly #isShown: boolean = process.stderr.isTTY === true
  readonly #begun = performance.now()
  #start = performance.now()
  #lastLine = performance.now()
  #isDirty = false

  /** Of a model that loads; 0…1. */
  loading = (fraction: number): void => this.#part('loading the model', fraction)

  /** Of a file that is written; 0…1. */
  writing = (fraction: number): void => this.#part('writing', fraction)

  /** Of a calibration; 0…1. */
  calibrating = (fraction: number): void => {
    const left = fraction > 0 ? ((performance.now() - this.#begun) / 1000) * (1 / fraction - 1) : 0
    if (fraction >= 1) this.clear()
    else this.#show(`calibrating: ${Math.floor(fraction * 100)}%, ${Math.ceil(left)} s left`)
  }

  /** Of a prompt that is read. */
  reading = (progress: PromptProgress): void => {
    if (progress.processed >= progress.total) this.clear()
    else this.#show(readingText(progress))
  }

  /** Of a training run. */
  training = (progress: TrainProgress): void => {
    if (progress.step >= progress.steps) this.clear()
    else if (this.#isShown) this.#show(progressText(progress))
    else if (performance.now() - this.#lastLine >= LINE_MS) {
      process.stderr.write(`${progressText(progress)}\n`)
      this.#lastLine = performance.now()
    }
  }

  clear(): void {
    if (this.#isDirty) process.stderr.write('\r\u001b[K')
    this.#isDirty = false
    this.#start = performance.now()
  }

  [Symbol.dispose](): void {
    this.clear()
  }

  #part(what: string, fraction: number): void {
    if (fraction >= 1) this.clear()
    else this.#show(`${what}: ${Math.floor(fraction * 100)}%`)
  }

  #show(text: string): void {
    if (!this.#isShown || performance.now() - this.#start < QUICK_MS) return
    process.stderr.write(`\r\u001b[K${text}`)
    this.#isDirty = true
  }
}

/** `reading the prompt: 1024 of 8192 tokens, 812 tokens/s, 9 s left`. */
export function readingText({ processed, total, ms }: PromptProgress): string {
  const perSecond = ms > 0 ? (processed / ms) * 1000 : 0
  const left = perSecond > 0 ? `, ${Math.round(perSecond)} tokens/s, ${Math.ceil((total - processed) / perSecond)} s left` : ''
  return `reading the prompt: ${processed} of ${total} tokens${left}`
}
