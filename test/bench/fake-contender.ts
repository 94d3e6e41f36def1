import type { Contender, StepTokens } from '../../src/bench/contender.ts'

/** Counts what it is given; computes nothing. */
export class FakeContender implements Contender {
  readonly engine: 'kvasir' | 'llama.cpp'
  readonly attention = 'dense'
  readonly flashAttn: number
  readonly steps: { seq: number; n: number; logits: boolean }[][] = []
  readonly tokens: number[] = []
  readonly truncated: number[] = []
  nTokens: number

  constructor(engine: 'kvasir' | 'llama.cpp' = 'kvasir', flashAttn = -1, nTokens = 0) {
    this.engine = engine
    this.flashAttn = flashAttn
    this.nTokens = nTokens
  }

  async step(parts: readonly StepTokens[]): Promise<void> {
    this.steps.push(parts.map(({ seq, tokens, logits }) => ({ seq, n: tokens.length, logits })))
    for (const { tokens } of parts) {
      this.tokens.push(...tokens)
      this.nTokens += tokens.length
    }
  }

  truncate(nTokens: number): void {
    this.truncated.push(nTokens)
    this.nTokens = nTokens
  }

  kvBytes(): number {
    return this.nTokens
  }

  computeSeconds(): number | null {
    return this.engine === 'kvasir' ? 0 : null
  }

  [Symbol.dispose](): void {}
}
