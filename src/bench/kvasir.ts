/** Our engine as a contender: the runner, without scheduler, tokeniser and sampler. */
import type { Runner, RunPart, RunSequence } from '../engine/runner.ts'
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
  readonly #sequences: readonly RunSequence[]
  readonly #nUbatch: number

  constructor(runner: Runner, { nSeq, nCtx, attention, nUbatch }: KvasirSeats) {
    this.attention = attention
    this.#runner = runner
    this.#nUbatch = nUbatch
    this.#sequences = Array.from({ length: nSeq }, () => runner.newSequence(nCtx, attention))
  }

  async step(parts: readonly StepTokens[]): Promise<void> {
    for (const graph of splitSteps(parts, this.#nUbatch)) {
      await this.#runner.run(
        graph.map(({ seq, tokens, logits }): RunPart => {
          return { sequence: this.#sequences[seq]!, tokens, logits: logits ? 'last' : 'none' }
        }),
      )
    }
  }

  truncate(nTokens: number): void {
    for (const { cache } of this.#sequences) cache.truncate(nTokens)
  }

  kvBytes(): number {
    return this.#sequences.reduce((sum, { cache }) => sum + cache.bytesHeld, 0)
  }

  computeSeconds(): number {
    return this.#runner.computeSeconds
  }

  [Symbol.dispose](): void {
    for (const sequence of this.#sequences) sequence[Symbol.dispose]()
  }
}

/** The same tokens in the same order, in groups of at most `nMost`; a cut part keeps its logits for its last piece. */
export function splitSteps(parts: readonly StepTokens[], nMost: number): StepTokens[][] {
  const groups: StepTokens[][] = []
  let room = 0
  for (const { seq, tokens, logits } of parts) {
    for (let from = 0; from < tokens.length;) {
      if (room === 0) {
        groups.push([])
        room = nMost
      }
      const to = Math.min(from + room, tokens.length)
      groups.at(-1)!.push({ seq, tokens: tokens.subarray(from, to), logits: logits && to === tokens.length })
      room -= to - from
      from = to
    }
  }
  return groups
}
