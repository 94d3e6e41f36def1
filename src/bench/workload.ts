/** The two kinds of work that are timed: reading a prompt, and generating token by token. Sampling is left out: ids are given. */
import { KvasirError } from '../core/errors.ts'
import type { Contender, StepTokens } from './contender.ts'
import { randomTokens } from './statistics.ts'

export interface Workload {
  readonly nSeq: number
  readonly nVocab: number
  /** Tokens per step. */
  readonly nBatch: number
  readonly seed: number
  readonly signal?: AbortSignal | undefined
}

/** Appends `n` tokens to every sequence, in steps of `nBatch` that may span sequences; logits only after each one's last token. */
export async function readPrompt(contender: Contender, n: number, work: Workload): Promise<void> {
  const tokens = randomTokens(n * work.nSeq, work.nVocab, work.seed)
  for (let from = 0; from < tokens.length; from += work.nBatch) {
    const to = Math.min(from + work.nBatch, tokens.length)
    const parts: StepTokens[] = []
    for (let at = from; at < to;) {
      const seq = Math.floor(at / n)
      const end = Math.min((seq + 1) * n, to)
      parts.push({ seq, tokens: tokens.subarray(at, end), logits: end === (seq + 1) * n })
      at = end
    }
    checkAborted(work.signal)
    await contender.step(parts)
  }
}

/** Appends `n` tokens to every sequence, one per sequence and step, with logits, as decoding does. */
export async function generate(contender: Contender, n: number, work: Workload): Promise<void> {
  const tokens = randomTokens(n * work.nSeq, work.nVocab, work.seed + 1)
  for (let i = 0; i < n; i++) {
    const parts = Array.from({ length: work.nSeq }, (_, seq) => {
      const at = i * work.nSeq + seq
      return { seq, tokens: tokens.subarray(at, at + 1), logits: true }
    })
    checkAborted(work.signal)
    await contender.step(parts)
  }
}

export function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new KvasirError('aborted')
}
