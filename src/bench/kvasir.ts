/** Our engine as a contender: the runner, without scheduler, tokeniser and sampler. */
import type { RunSequence } from '../engine/run-sequence.ts'
import type { Runner, RunChunk } from '../engine/runner.ts'
import type { Contender, Seats, StepTokens } from './contender.ts'

export interface KvasirSeats extends Seats {
  readonly attention: string
  /** Tokens per graph. */
  readonly nUbatch: number
}

export class KvasirContender implements Contender {
  readonly engine = 'kvasir'
  readonly attention: string
  readonly flashAttn = -1
  readonly #runner: Runner
  #sequences: readonly RunSequence[]
  readonly #nUbatch: number
  readonly #newSequences: () => readonly RunSequence[]

  constructor(runner: Runner, { nSeq, nCtx, attention, nUbatch }: KvasirSeats) {
    this.attention = attention
    this.#runner = runner
    this.#nUbatch = nUbatch
    this.#newSequences = () => Array.from({ length: nSeq }, () => runner.newSequence(nCtx, attention))
    this.#sequences = this.#newSequences()
  }

  async step(parts: readonly StepTokens[]): Promise<void> {
    // What a sequence takes at once may change with what it holds, so a graph is made when the one before is done.
    for (let later = parts; later.length > 0;) {
      const graph = splitStep(later, this.#nUbatch, (seq) => this.#maxChunk(seq))
      await this.#runner.run(
        graph.now.map(({ seq, tokens, logits }): RunChunk => {
          return { sequence: this.#sequences[seq]!, tokens, endsPrompt: logits, logits: logits ? 'last' : 'none' }
        }),
      )
      later = graph.later
    }
  }

  truncate(nTokens: number): boolean {
    if (this.#sequences.every(({ cache }) => cache.nTokens === nTokens)) return true
    return this.#sequences.every((sequence) => sequence.truncate(nTokens))
  }

  clear(): void {
    this[Symbol.dispose]()
    this.#sequences = this.#newSequences()
  }

  kvBytes(): number {
    return this.#sequences.reduce((sum, { cache }) => sum + cache.bytesHeld, 0)
  }

  computeSeconds(): number {
    return this.#runner.computeSeconds
  }

  #maxChunk(seq: number): number {
    const { cache, attention } = this.#sequences[seq]!
    return attention.maxChunk(cache)
  }

  [Symbol.dispose](): void {
    for (const sequence of this.#sequences) sequence[Symbol.dispose]()
  }
}

/** One graph's share of a step. */
export interface Split {
  readonly now: readonly StepTokens[]
  readonly later: readonly StepTokens[]
}

/**
 * At most `nMost` tokens of `parts`, of each sequence no more than it takes at once, and what is left for later; a cut part
 * keeps its logits for its last piece.
 */
export function splitStep(parts: readonly StepTokens[], nMost: number, mostOf: (seq: number) => number = () => Infinity): Split {
  const now: StepTokens[] = []
  const later: StepTokens[] = []
  let room = nMost
  for (const part of parts) {
    const { seq, tokens, logits } = part
    const n = Math.min(room, mostOf(seq), tokens.length)
    room -= n
    if (n > 0) now.push({ seq, tokens: tokens.subarray(0, n), logits: logits && n === tokens.length })
    if (n < tokens.length) later.push({ seq, tokens: tokens.subarray(n), logits })
  }
  if (now.length === 0) throw new Error('no sequence takes a token')
  return { now, later }
}
