/** Two models' thoughts on the same next token. */
import { logSumExp } from '../../src/engine/logprobs.ts'
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
  const [p, q] = [logSumExp(reference), logSumExp(ours)]
  let kl = 0
  for (let i = 0; i < ours.length; i++) {
    const logP = reference[i]! - p
    kl += Math.exp(logP) * (logP - (ours[i]! - q))
  }
  return { logProbability: ours[next]! - q, kl, isSameTop: argmax(ours) === argmax(reference) }
}
