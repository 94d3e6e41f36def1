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
  cleared = 0
  /** It cannot be cut back. */
  forgets = false

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

  truncate(nTokens: number): boolean {
    if (nTokens === this.nTokens) return true
    if (nTokens > this.nTokens || this.forgets) return false
    this.truncated.push(nTokens)
    this.nTokens = nTokens
    return true
  }

  clear(): void {
    this.cleared++
    this.nTokens = 0
  }

  kvBytes(): number {
    return this.nTokens
  }

  computeSeconds(): number | null {
    return this.engine === 'kvasir' ? 0 : null
  }

  [Symbol.dispose](): void {}
}
