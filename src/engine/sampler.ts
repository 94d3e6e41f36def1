/**
 * Logits → the next token, in llama.cpp's order: bias and penalties, then top-k, top-p and min-p cut the list of candidates,
 * then temperature, then a seeded draw. Temperature 0 takes the most likely token.
 */
import type { SamplingParams } from '../core/sampling.ts'
import { random } from '../core/random.ts'

/** A logit bias at or below this bans the token, as OpenAI documents -100. */
const BAN = -100

export class Sampler {
  readonly #params: SamplingParams
  readonly #random: () => number
  readonly #bias: readonly (readonly [token: number, bias: number])[]
  readonly #recent: number[] = []
  #order = new Uint32Array(0)

  /** `banned` tokens are never chosen. */
  constructor(params: SamplingParams, banned: readonly number[] = []) {
    this.#params = params
    this.#random = random(params.seed)
    const bias = Object.entries(params.logit_bias).map(
      ([token, value]) => [Number(token), value <= BAN ? -Infinity : value] as const,
    )
    this.#bias = [...bias, ...banned.map((token) => [token, -Infinity] as const)]
  }

  /** Tells the penalties of a token of the prompt or the answer. */
  accept(token: number): void {
    const { repeat_last_n: last } = this.#params
    if (last === 0) return
    this.#recent.push(token)
    if (last > 0 && this.#recent.length > last) this.#recent.shift()
  }

  /** Chooses a token; changes `logits`. */
  sample(logits: Float32Array): number {
    for (const [token, bias] of this.#bias) if (token < logits.length) logits[token]! += bias
    this.#penalize(logits)
    const { temperature } = this.#params
    if (temperature === 0) return mostLikely(logits)
    const candidates = this.#candidates(logits)
    return this.#draw(logits, candidates, temperature)
  }

  #penalize(logits: Float32Array): void {
    const { repeat_penalty: repeat, frequency_penalty: frequency, presence_penalty: presence } = this.#params
    if (repeat === 1 && frequency === 0 && presence === 0) return
    const counts = new Map<number, number>()
    for (const token of this.#recent) counts.set(token, (counts.get(token) ?? 0) + 1)
    for (const [token, count] of counts) {
      const logit = logits[token]!
      logits[token] = (logit > 0 ? logit / repeat : logit * repeat) - count * frequency - presence
    }
  }

  /** Tokens that survive top-k, top-p and min-p, most likely first. */
  #candidates(logits: Float32Array): Uint32Array {
    const { top_k: k, top_p: p, min_p: minP } = this.#params
    const sorted = k > 0 && k < logits.length ? topK(logits, k) : this.#sortAll(logits)
    const best = logits[sorted[0]!]!
    const weights = Float64Array.from(sorted, (token) => Math.exp(logits[token]! - best))
    const enough = p < 1 ? p * weights.reduce((sum, weight) => sum + weight, 0) : Infinity
    let n = 0
    for (let sum = 0; n < weights.length && sum < enough && weights[n]! >= minP && weights[n]! > 0; n++) sum += weights[n]!
    return sorted.subarray(0, Math.max(1, n))
  }

  #sortAll(logits: Float32Array): Uint32Array {
    if (this.#order.length !== logits.length) this.#order = new Uint32Array(logits.length)
    for (let token = 0; token < logits.length; token++) this.#order[token] = token
    return this.#order.sort((a, b) => logits[b]! - logits[a]! || a - b)
  }

  #draw(logits: Float32Array, candidates: Uint32Array, temperature: number): number {
    const best = logits[candidates[0]!]!
    const weights = Float64Array.from(candidates, (token) => Math.exp((logits[token]! - best) / temperature))
    let left = this.#random() * weights.reduce((sum, weight) => sum + weight, 0)
    for (const [i, weight] of weights.entries()) {
      left -= weight
      if (left < 0) return candidates[i]!
    }
    return candidates[0]!
  }
}

/** The first of the largest logits. */
export function mostLikely(logits: Float32Array): number {
  let best = 0
  for (let token = 1; token < logits.length; token++) if (logits[token]! > logits[best]!) best = token
  return best
}

/** The k largest, most likely first; of equals the smaller id. One pass with a small heap whose root is the worst kept. */
export function topK(logits: Float32Array, k: number): Uint32Array {
  const heap = new Uint32Array(Math.min(k, logits.length))
  const worse = (a: number, b: number): boolean => logits[a]! < logits[b]! || (logits[a]! === logits[b]! && a > b)
  const sink = (at: number, size: number): void => {
    for (;;) {
      let least = at
      for (const child of [2 * at + 1, 2 * at + 2]) if (child < size && worse(heap[child]!, heap[least]!)) least = child
      if (least === at) return
      ;[heap[at], heap[least]] = [heap[least]!, heap[at]!]
      at = least
    }
  }
  for (let i = 0; i < heap.length; i++) heap[i] = i
  for (let i = (heap.length >> 1) - 1; i >= 0; i--) sink(i, heap.length)
  for (let token = heap.length; token < logits.length; token++) {
    if (logits[token]! <= logits[heap[0]!]!) continue
    heap[0] = token
    sink(0, heap.length)
  }
  return heap.sort((a, b) => logits[b]! - logits[a]! || a - b)
}
