/** What clustering the heads of one layer costs: how far the model's predictions go from those of dense attention. */
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting } from '../core/request.ts'
import { divergence } from '../engine/logprobs.ts'
import type { Runner } from '../engine/runner.ts'
import type { ErrorCurve } from './elbow.ts'

export interface LossOptions {
  readonly windows: readonly Int32Array[]
  /** 0 … 1 */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal | undefined
}

/** Numbers of clusters that are tried per layer at most; between them the curve is straight. */
const MOST_TRIED = 8

/**
 * Per layer, with 1 … G clusters there and none in the other layers: nats of KL(dense ‖ clustered) per token. Takes layers ·
 * numbers · windows passes. Errors: `aborted`.
 */
export async function layerLosses(runner: Runner, { windows, onProgress, signal }: LossOptions): Promise<ErrorCurve[]> {
  const { nLayer, nHeadKv: G } = runner.shape
  const tried = triedOf(G)
  const losses = Array.from({ length: nLayer }, () => new Float64Array(tried.length))
  let done = 0
  for (const tokens of windows) {
    const dense = await logitsOf(runner, 'dense', tokens)
    for (let il = 0; il < nLayer; il++) {
      for (const [i, count] of tried.entries()) {
        if (signal?.aborted) throw new KvasirError('aborted')
        const clusters = Array.from({ length: nLayer }, (_, other) => (other === il ? count : G)).join('/')
        const ours = await logitsOf(runner, { method: 'chai', clusters }, tokens)
        losses[il]![i]! += meanDivergence(dense, ours, runner.shape.nVocab) / windows.length
        onProgress?.(++done / (windows.length * nLayer * tried.length))
      }
    }
  }
  return losses.map((loss) => curveThrough(G, tried, loss))
}

/** 1, …, G - 1, or some of them at equal distances. */
function triedOf(G: number): number[] {
  const n = Math.min(G - 1, MOST_TRIED)
  return Array.from({ length: n }, (_, i) => 1 + Math.round((i * (G - 2)) / Math.max(1, n - 1)))
}

/** Straight between what was tried, and 0 for G clusters. */
function curveThrough(G: number, tried: readonly number[], losses: Float64Array): number[] {
  const known = [...tried, G]
  const at = (i: number) => losses[i] ?? 0
  return Array.from({ length: G }, (_, c) => {
    const right = known.findIndex((count) => count >= c + 1)
    if (known[right] === c + 1) return Number(at(right).toPrecision(6))
    const part = (c + 1 - known[right - 1]!) / (known[right]! - known[right - 1]!)
    return Number((at(right - 1) * (1 - part) + at(right) * part).toPrecision(6))
  })
}

/** Logits after every token, f32[nVocab, n]. */
async function logitsOf(runner: Runner, setting: AttentionSetting, tokens: Int32Array): Promise<Float32Array> {
  using sequence = runner.newSequence(tokens.length, setting)
  const { cache, attention } = sequence
  const all = new Float32Array(tokens.length * runner.shape.nVocab)
  while (cache.nTokens < tokens.length) {
    const at = cache.nTokens
    const size = Math.min(attention.maxChunk(cache), tokens.length - at)
    const [logits] = await runner.run([{ sequence, tokens: tokens.subarray(at, at + size), logits: 'all' }])
    all.set(logits!, at * runner.shape.nVocab)
  }
  return all
}

/** Mean over columns of KL(softmax a ‖ softmax b). */
function meanDivergence(a: Float32Array, b: Float32Array, nVocab: number): number {
  let sum = 0
  for (let at = 0; at < a.length; at += nVocab) sum += divergence(a.subarray(at, at + nVocab), b.subarray(at, at + nVocab))
  return sum / (a.length / nVocab)
}
