/** Log-probabilities of the model's own distribution, before temperature and filters. */
import type { TokenLogprob } from '../core/request.ts'
import { topK } from './sampler.ts'

/** ln Σ exp(logits). */
export function logSumExp(logits: Float32Array): number {
  let most = -Infinity
  for (const logit of logits) if (logit > most) most = logit
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - most)
  return most + Math.log(sum)
}

/** KL(softmax(reference) ‖ softmax(ours)) in nats. */
export function divergence(reference: Float32Array, ours: Float32Array): number {
  const [p, q] = [logSumExp(reference), logSumExp(ours)]
  let sum = 0
  for (let i = 0; i < ours.length; i++) {
    const logP = reference[i]! - p
    sum += Math.exp(logP) * (logP - (ours[i]! - q))
  }
  return sum
}

/** Of `token` and of the `top` most likely. */
export function logprobOf(logits: Float32Array, token: number, top: number): TokenLogprob {
  const total = logSumExp(logits)
  const likely = top > 0 ? Array.from(topK(logits, top), (id) => ({ token: id, logprob: logits[id]! - total })) : []
  return { token, logprob: logits[token]! - total, top: likely }
}
