/**
 * The engine: takes requests, runs them together step by step, and streams what comes out.
 */
import type { GenerateEvent, GenerateRequest, GenerateResult } from '../core/request.ts'
import type { ModelShape } from '../core/shape.ts'
import type { ChatTemplate } from '../text/chat-template.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import type { WeightSource } from '../weights/source.ts'

export interface EngineOptions {
  /** Context per sequence in tokens; 0 (default) is what the model was trained for. */
  readonly nCtx?: number
  /** Tokens per step at most (-b, default 2048) and per graph (-ub, default 512). */
  readonly nBatch?: number
  readonly nUbatch?: number
  /** Requests that decode side by side (-np, default 4); more wait. */
  readonly nParallel?: number
  /** Threads (-t); default: the processors we may use. */
  readonly nThreads?: number
  /** Quantise 2-D weights to this ggml type while loading (--type), e.g. `q8_0`. */
  readonly type?: string
  /** Type of cached keys and values (-ctk, -ctv; default f16). */
  readonly typeK?: string
  readonly typeV?: string
  /** Put weights into the processor's repacked layouts where they are faster (default true; costs loading time). */
  readonly repack?: boolean
  /** 0…1 while loading. */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal
}

/** Counters since the engine was made; plain data for /metrics, the web page and benchmarks. */
export interface EngineStats {
  readonly requestsRunning: number
  readonly requestsWaiting: number
  readonly promptTokens: number
  readonly generatedTokens: number
  readonly promptSeconds: number
  readonly generatedSeconds: number
  readonly steps: number
  /** Seconds inside ggml's compute, and in whole steps (compute included). */
  readonly computeSeconds: number
  readonly stepSeconds: number
  /** Resident bytes of all caches now, and the bytes per token of one sequence. */
  readonly kvBytes: number
  readonly kvBytesPerToken: number
  readonly weightBytes: number
  /** Scratch memory of the graphs. */
  readonly computeBytes: number
}

export interface FinishedRequest extends GenerateResult {
  readonly queueSeconds: number
  readonly firstTokenSeconds: number
  readonly totalSeconds: number
}

export declare class Engine implements AsyncDisposable {
  static load(path: string, options?: EngineOptions): Promise<Engine>
  readonly path: string
  readonly name: string
  readonly source: WeightSource
  readonly shape: ModelShape
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly nCtx: number
  readonly nParallel: number
  readonly nThreads: number
  /** Called once per finished or aborted request. */
  onFinished: ((request: FinishedRequest) => void) | undefined
  /** Throws at once for a prompt that does not fit (`exceed_context_size_error`); otherwise queues. Leaving the loop aborts. */
  submit(request: GenerateRequest): AsyncIterableIterator<GenerateEvent>
  stats(): EngineStats
  [Symbol.asyncDispose](): Promise<void>
}
