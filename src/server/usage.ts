/** One `usage` and one `timings` for a reply of several choices. */
import type { GenerateResult, Timings, Usage } from '../core/request.ts'

function sum<T>(items: readonly T[], read: (item: T) => number): number {
  return items.reduce((total, item) => total + read(item), 0)
}

/** A prompt counts once, however many choices (`n`) answer it, as with OpenAI; everything else is the sum over choices. */
export function combineUsage(results: readonly GenerateResult[], n: number): Usage {
  const usages = results.map((result) => result.usage)
  const firsts = usages.filter((_, index) => index % n === 0)
  const prompt_tokens = sum(firsts, (usage) => usage.prompt_tokens)
  const completion_tokens = sum(usages, (usage) => usage.completion_tokens)
  const costs = usages.map((usage) => usage.attention)
  const keys_read = sum(costs, (cost) => cost.keys_read)
  const keys_dense = sum(costs, (cost) => cost.keys_dense)
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: { cached_tokens: sum(firsts, (usage) => usage.prompt_tokens_details.cached_tokens) },
    attention: {
      method: costs[0]!.method,
      keys_read,
      keys_dense,
      density: keys_dense === 0 ? 1 : keys_read / keys_dense,
      kept_tokens: sum(costs, (cost) => cost.kept_tokens),
      evicted_tokens: sum(costs, (cost) => cost.evicted_tokens),
      kv_bytes: sum(costs, (cost) => cost.kv_bytes),
      kv_bytes_dense: sum(costs, (cost) => cost.kv_bytes_dense),
    },
  }
}

const perToken = (ms: number, tokens: number): number => (tokens === 0 ? 0 : ms / tokens)
const perSecond = (ms: number, tokens: number): number => (ms === 0 ? 0 : (1000 * tokens) / ms)

/** Choices run side by side: tokens are added, times are those of the slowest. */
export function combineTimings(results: readonly GenerateResult[]): Timings {
  const all = results.map((result) => result.timings)
  if (all.length === 1) return all[0]!
  const prompt_n = sum(all, (timings) => timings.prompt_n)
  const prompt_ms = Math.max(...all.map((timings) => timings.prompt_ms))
  const predicted_n = sum(all, (timings) => timings.predicted_n)
  const predicted_ms = Math.max(...all.map((timings) => timings.predicted_ms))
  return {
    cache_n: sum(all, (timings) => timings.cache_n),
    prompt_n,
    prompt_ms,
    prompt_per_token_ms: perToken(prompt_ms, prompt_n),
    prompt_per_second: perSecond(prompt_ms, prompt_n),
    predicted_n,
    predicted_ms,
    predicted_per_token_ms: perToken(predicted_ms, predicted_n),
    predicted_per_second: perSecond(predicted_ms, predicted_n),
  }
}
