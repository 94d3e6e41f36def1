/** Prometheus metrics: vLLM's names after `kvasir_`. Each app has its own registry, so that several can live in one process. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineStats, FinishedRequest } from '../engine/engine.ts'
import type { ServedEngine } from './served-engine.ts'

const SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]
const SHARES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]

/** Values that the engine keeps: name, help, how to read them. They are read when Prometheus asks. */
const GAUGES: readonly (readonly [string, string, (stats: EngineStats) => number])[] = [
  ['num_requests_running', 'Requests that are being computed', (stats) => stats.requestsRunning],
  ['num_requests_waiting', 'Requests that wait for their turn', (stats) => stats.requestsWaiting],
  ['weight_bytes', 'Bytes of the weights', (stats) => stats.weightBytes],
  ['compute_bytes', 'Scratch memory of the graphs', (stats) => stats.computeBytes],
]
const COUNTERS: readonly (readonly [string, string, (stats: EngineStats) => number])[] = [
  ['prompt_tokens_total', 'Prompt tokens computed', (stats) => stats.promptTokens],
  ['generation_tokens_total', 'Tokens generated', (stats) => stats.generatedTokens],
  ['steps_total', 'Forward passes', (stats) => stats.steps],
  ['step_seconds_total', 'Seconds in steps', (stats) => stats.stepSeconds],
  ['compute_seconds_total', 'Seconds of steps inside ggml', (stats) => stats.computeSeconds],
]

export interface Metrics {
  /** Follows an engine: its counters, and every request it finishes. */
  watch(engine: ServedEngine): void
  /** Seconds between two tokens of one answer. */
  tokenInterval(seconds: number): void
  /** A prompt that did not fit. */
  overflow(): void
  text(): Promise<string>
  readonly contentType: string
}

export function createMetrics(): Metrics {
  const registry = new Registry()
  const common = { registers: [registry] }
  const histogram = (name: string, help: string, buckets: number[]): Histogram =>
    new Histogram({ name: `kvasir_${name}`, help, buckets, ...common })

  const success = new Counter({
    name: 'kvasir_request_success_total',
    help: 'Requests that ended, by reason',
    labelNames: ['finished_reason'],
    ...common,
  })
  for (const finished_reason of ['stop', 'length', 'abort']) success.inc({ finished_reason }, 0)
  const overflow = new Counter({
    name: 'kvasir_context_overflow_total',
    help: 'Prompts that were longer than the context, by what was done',
    labelNames: ['policy'],
    ...common,
  })
  overflow.inc({ policy: 'error' }, 0)
  const evicted = new Counter({
    name: 'kvasir_kv_tokens_evicted_total',
    help: 'Tokens dropped from caches',
    labelNames: ['method'],
    ...common,
  })
  const firstToken = histogram('time_to_first_token_seconds', 'From arrival to the first token', SECONDS)
  const interToken = histogram('inter_token_latency_seconds', 'Between two tokens of one answer', SECONDS)
  const total = histogram('e2e_request_latency_seconds', 'From arrival to the end', SECONDS)
  const queue = histogram('request_queue_time_seconds', 'Waiting for a turn', SECONDS)
  const prefill = histogram('request_prefill_time_seconds', 'Reading the prompt', SECONDS)
  const decode = histogram('request_decode_time_seconds', 'Writing the answer', SECONDS)
  const density = histogram('attention_density', 'Keys read, as a share of what dense attention reads', SHARES)
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the process',
    ...common,
    collect() {
      this.set(process.memoryUsage.rss())
    },
  })

  function finished({ stopReason, usage, timings, ...times }: FinishedRequest): void {
    success.inc({ finished_reason: stopReason === 'aborted' ? 'abort' : stopReason })
    evicted.inc({ method: usage.attention.method }, usage.attention.evicted_tokens)
    if (stopReason === 'aborted') return
    queue.observe(times.queueSeconds)
    firstToken.observe(times.firstTokenSeconds)
    total.observe(times.totalSeconds)
    prefill.observe(timings.prompt_ms / 1000)
    decode.observe(timings.predicted_ms / 1000)
    density.observe(usage.attention.density)
  }

  return {
    watch(engine) {
      for (const [name, help, read] of GAUGES)
        new Gauge({
          name: `kvasir_${name}`,
          help,
          ...common,
          collect() {
            this.set(read(engine.stats()))
          },
        })
      for (const [name, help, read] of COUNTERS)
        new Counter({
          name: `kvasir_${name}`,
          help,
          ...common,
          collect() {
            this.reset()
            this.inc(read(engine.stats()))
          },
        })
      new Gauge({
        name: 'kvasir_kv_cache_bytes',
        help: 'Resident bytes of all caches',
        labelNames: ['tier'],
        ...common,
        collect() {
          this.set({ tier: 'memory' }, engine.stats().kvBytes)
        },
      })
      const before = engine.onFinished
      engine.onFinished = (request) => {
        before?.(request)
        finished(request)
      }
    },
    tokenInterval: (seconds) => interToken.observe(seconds),
    overflow: () => overflow.inc({ policy: 'error' }),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  }
}
