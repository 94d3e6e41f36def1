/** Two models' thoughts on the same next token. */
import { divergence as klDivergence, logSumExp } from '../../src/engine/logprobs.ts'
import { argmax } from './reference.ts'

export interface Divergence {
  /** ln of the probability that `ours` gives to the token that follows. */
  readonly logProbability: number
  /** KL(reference ‖ ours) in nats: Σ p · ln(p / q). */
  readonly kl: number
  readonly isSameTop: boolean
}

/** Of logits f32[nVocab] each. */
export function divergence(reference: Float32Array, ours: Float32Array, next: number): Divergence {
  return {
    logProbability: ours[next]! - logSumExp(ours),
    kl: klDivergence(reference, ours),
    isSameTop: argmax(ours) === argmax(reference),
  }
}
