/**
 * Who goes next. Requests wait in order of arrival until one of `nParallel` places is free; in each step every decoding
 * sequence gets its one token, and what remains of the step's tokens goes to prompts, oldest first.
 */
import type { RunChunk } from './runner.ts'
import type { Sequence } from './sequence.ts'

export interface Scheduled {
  readonly sequence: Sequence
  readonly chunk: RunChunk
}

export class Scheduler {
  readonly waiting: Sequence[] = []
  readonly running: Sequence[] = []
  readonly #nParallel: number
  readonly #nBatch: number
  /** Most rows of logits a step may bring, so that a prompt's log-probabilities do not take gigabytes. */
  readonly #nLogits: number

  constructor(limits: { readonly nParallel: number; readonly nBatch: number; readonly nLogits: number }) {
    this.#nParallel = limits.nParallel
    this.#nBatch = limits.nBatch
    this.#nLogits = limits.nLogits
  }

  /** Moves waiting sequences to free places; `admit` prepares them and may throw, which fails just that sequence. */
  admit(admit: (sequence: Sequence) => void): void {
    while (this.waiting.length > 0 && this.running.length < this.#nParallel) {
      const sequence = this.waiting.shift()!
      if (!sequence.ended) {
        try {
          admit(sequence)
        } catch (error) {
          sequence.fail(error)
        }
      }
      this.running.push(sequence)
    }
  }

  /** Takes out the sequences that have ended, waiting ones too. */
  takeEnded(): Sequence[] {
    const ended: Sequence[] = []
    for (const list of [this.running, this.waiting]) {
      for (let i = list.length - 1; i >= 0; i--) if (list[i]!.ended) ended.push(...list.splice(i, 1))
    }
    return ended
  }

  /** The next step. */
  next(): Scheduled[] {
    const decoding = this.running.filter((sequence) => sequence.promptLeft === 0)
    const reading = this.running.filter((sequence) => sequence.promptLeft > 0)
    const step = decoding.slice(0, this.#nBatch).map((sequence) => ({ sequence, chunk: sequence.chunk(1) }))
    let left = this.#nBatch - step.length
    for (const sequence of reading) {
      if (left <= 0) break
      const budget = sequence.request.promptLogprobs ? Math.min(left, this.#nLogits) : left
      const chunk = sequence.chunk(budget)
      step.push({ sequence, chunk })
      left -= chunk.tokens.length
    }
    return step
  }
}
