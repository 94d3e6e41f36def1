/**
 * The engine: takes requests, runs them together step by step, and streams what comes out.
 */
import { basename, resolve } from 'node:path'
import { Attention } from '../attention/attention.ts'
import { canonicalSpec, DENSE } from '../attention/spec.ts'
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting, BoundAttention, GenerateEvent, GenerateRequest, GenerateResult } from '../core/request.ts'
import type { ModelShape } from '../core/shape.ts'
import { F16, F32, typeId } from '../ggml/types.ts'
import type { ChatTemplate } from '../text/chat-template.ts'
import { chatTemplateOf } from '../text/chat-encoding.ts'
import { loadTokenizer } from '../text/load.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { openWeights } from '../weights/open.ts'
import type { WeightSource } from '../weights/source.ts'
import { Runner } from './runner.ts'
import { Scheduler } from './scheduler.ts'
import { checkFits, Sequence } from './sequence.ts'
import type { SettingFrom } from './settings.ts'
import { threadsFor } from './threads.ts'

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
  /** How attention is computed (--attention; default dense), unless a request says otherwise. */
  readonly attention?: AttentionSetting
  /** Names for adapters and calibrations (--adapter): a setting may name them instead of their paths. */
  readonly adapters?: Readonly<Record<string, string>> | undefined
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
  /** Scratch memory of the graphs; given back when nothing runs. */
  readonly computeBytes: number
}

export interface FinishedRequest extends GenerateResult {
  readonly queueSeconds: number
  readonly firstTokenSeconds: number
  readonly totalSeconds: number
}

interface Parts {
  readonly path: string
  readonly source: WeightSource
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly runner: Runner
}

/** Requests that may wait; more are refused at once. */
const MOST_WAITING = 1024
/** Bytes of logits per step when a prompt's log-probabilities are wanted. */
const LOGITS_BYTES = 64 * 2 ** 20

export class Engine implements AsyncDisposable {
  readonly path: string
  readonly name: string
  readonly source: WeightSource
  readonly tokenizer: Tokenizer
  readonly template: ChatTemplate
  readonly nCtx: number
  readonly nParallel: number
  readonly nThreads: number
  /** Of requests that name none. */
  readonly #attention: Attention
  /** Called once per finished or aborted request. */
  onFinished: ((request: FinishedRequest) => void) | undefined
  readonly #runner: Runner
  readonly #scheduler: Scheduler
  readonly #totals = { promptTokens: 0, generatedTokens: 0, promptSeconds: 0, generatedSeconds: 0 }
  /** Sequences of the step that is being computed. */
  #computing: readonly Sequence[] = []
  #loop: Promise<void> | null = null
  #closed = false

  private constructor(parts: Parts, options: EngineOptions) {
    this.path = parts.path
    this.name = basename(parts.path).replace(/\.gguf$/, '')
    this.source = parts.source
    this.tokenizer = parts.tokenizer
    this.template = parts.template
    this.#runner = parts.runner
    const { nCtxTrain, nPositions = Infinity } = parts.runner.shape
    this.nCtx = Math.min(options.nCtx || nCtxTrain, nPositions)
    this.nThreads = parts.runner.nThreads
    this.#attention = parts.runner.attention(options.attention ?? DENSE)
    const nBatch = Math.min(options.nBatch ?? 2048, options.nUbatch ?? 512)
    // A step has a token for everybody who is admitted: nobody waits for others who may never end.
    this.nParallel = Math.min(options.nParallel ?? 4, nBatch)
    const nLogits = Math.max(1, Math.floor(LOGITS_BYTES / (4 * this.shape.nVocab)))
    this.#scheduler = new Scheduler({ nParallel: this.nParallel, nBatch, nLogits })
  }

  static async load(path: string, options: EngineOptions = {}): Promise<Engine> {
    for (const name of ['nCtx', 'nBatch', 'nUbatch', 'nParallel', 'nThreads'] as const) checkCount(name, options[name])
    const cacheTypes = { k: cacheType('typeK', options.typeK), v: cacheType('typeV', options.typeV) }
    canonicalSpec(options.attention ?? 'dense') // a mistake in it is told before anything is loaded
    const type = options.type === undefined ? undefined : typeId(options.type)
    const opened: Disposable[] = []
    try {
      const source = openWeights(path)
      opened.push(source)
      const tokenizer = loadTokenizer(source)
      opened.push(tokenizer)
      const template = chatTemplateOf(source, tokenizer)
      const nThreads = threadsFor(options.nThreads)
      const { repack = true, adapters, onProgress, signal } = options
      const runner = await Runner.load(source, { nThreads, cacheTypes, type, repack, adapters, onProgress, signal })
      return new Engine({ path: resolve(path), source, tokenizer, template, runner }, options)
    } catch (error) {
      for (const resource of opened.reverse()) resource[Symbol.dispose]()
      throw error
    }
  }

  get shape(): ModelShape {
    return this.#runner.shape
  }

  /** Throws at once for a prompt that does not fit (`exceed_context_size_error`); otherwise queues. Leaving the loop aborts. */
  submit(request: GenerateRequest): AsyncIterableIterator<GenerateEvent> {
    if (this.#closed) throw new KvasirError('closed')
    const attention = this.#bound(request)
    const nCtx = attention.mostSeen(Math.min(this.nCtx, request.nCtx ?? Infinity))
    checkFits(request, { nCtx, nVocab: this.shape.nVocab })
    const { waiting } = this.#scheduler
    if (waiting.length >= MOST_WAITING) throw new KvasirError('overloaded', { waiting: waiting.length })
    const sequence = new Sequence(request, {
      tokenizer: this.tokenizer,
      nVocab: this.shape.nVocab,
      nCtx,
      attention,
      denseBytes: (nTokens) => this.#runner.denseBytes(nTokens),
      onAbort: () => this.#onAbort(),
    })
    waiting.push(sequence)
    this.#wake()
    return sequence.events
  }

  /** The setting of requests that name none, as it is written. */
  get attention(): string {
    return this.#attention.spec
  }

  /**
   * A setting, bound to the model for a request; left out, the engine's own. That of a stranger may not name paths.
   * Errors: `attention_invalid`.
   */
  bind(setting?: AttentionSetting, from: SettingFrom = 'owner'): BoundAttention {
    return setting === undefined ? this.#attention : this.#runner.attention(setting, from)
  }

  /** Only what {@link bind} gave is taken: another model's would be of other layers, and a text would be left out in silence. */
  #bound({ attention }: GenerateRequest): Attention {
    if (attention === undefined) return this.#attention
    if (attention instanceof Attention && attention.shape.layers === this.shape.layers) return attention
    throw new KvasirError('invalid_request', { reason: "'attention' is not what this engine's bind() gave" })
  }

  stats(): EngineStats {
    const { running, waiting } = this.#scheduler
    const { steps, stepSeconds } = this.#runner.stats
    return {
      ...this.#totals,
      requestsRunning: running.length,
      requestsWaiting: waiting.length,
      steps,
      stepSeconds,
      computeSeconds: this.#runner.computeSeconds,
      kvBytes: running.reduce((sum, { run }) => sum + (run?.cache.bytesHeld ?? 0), 0),
      kvBytesPerToken: this.#runner.cacheBytesPerToken(this.attention),
      weightBytes: this.#runner.weightBytes,
      computeBytes: this.#runner.scratchBytes,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const sequence of [...this.#scheduler.running, ...this.#scheduler.waiting]) sequence.abort()
    await this.#loop
    this.#runner[Symbol.dispose]()
    this.tokenizer[Symbol.dispose]()
    this.source[Symbol.dispose]()
  }

  /** Starts the loop unless it runs. */
  #wake(): void {
    this.#loop ??= this.#run()
  }

  /** Steps until nobody is left. */
  async #run(): Promise<void> {
    try {
      await Promise.resolve() // so that requests submitted together start together
      while (await this.#next());
      this.#runner.trim()
    } finally {
      this.#loop = null
      // Who submits in the very turn in which the last one ended still saw a loop that ran.
      if (this.#scheduler.waiting.length > 0) this.#wake()
    }
  }

  /** One step; false if there is nothing left to do. */
  async #next(): Promise<boolean> {
    this.#scheduler.admit((sequence) => {
      const { nCtx = this.nCtx } = sequence.request
      sequence.run = this.#runner.newSequence(Math.min(this.nCtx, nCtx), sequence.attention)
      sequence.times.started = performance.now()
    })
    this.#finishEnded()
    const step = this.#scheduler.next()
    if (step.length === 0) return this.#scheduler.waiting.length > 0
    await this.#step(step)
    this.#finishEnded()
    return true
  }

  async #step(step: ReturnType<Scheduler['next']>): Promise<void> {
    this.#computing = step.map(({ sequence }) => sequence)
    try {
      const results = await this.#runner.step(step.map(({ chunk }) => chunk))
      for (const [i, { sequence, chunk }] of step.entries()) {
        const result = results[i]!
        if ('error' in result) sequence.fail(result.error)
        else sequence.advance(chunk, result.logits)
      }
    } catch (error) {
      // An interrupted step changed nothing: sequences that were not aborted simply run again.
      if (error instanceof KvasirError && error.code === 'aborted') return
      for (const { sequence } of step) sequence.fail(error)
    } finally {
      this.#computing = []
    }
  }

  /** Stops the computation at once if nobody is left who waits for it. */
  #onAbort(): void {
    if (this.#computing.length > 0 && this.#computing.every((sequence) => sequence.ended)) this.#runner.interrupt()
    this.#wake()
  }

  #finishEnded(): void {
    for (const sequence of this.#scheduler.takeEnded()) {
      sequence.finish()
      const result = sequence.result!
      const { queued, started, firstToken, ended } = sequence.times
      this.#totals.promptTokens += result.timings.prompt_n
      this.#totals.generatedTokens += result.timings.predicted_n
      this.#totals.promptSeconds += result.timings.prompt_ms / 1000
      this.#totals.generatedSeconds += result.timings.predicted_ms / 1000
      this.onFinished?.({
        ...result,
        queueSeconds: ((started || ended) - queued) / 1000,
        firstTokenSeconds: ((firstToken || ended) - queued) / 1000,
        totalSeconds: (ended - queued) / 1000,
      })
    }
  }
}

function checkCount(name: string, value: number | undefined): void {
  if (value === undefined || (Number.isInteger(value) && value >= (name === 'nCtx' ? 0 : 1) && value <= 2 ** 30)) return
  throw new KvasirError('usage', { reason: `${name} is ${value}, and should be a whole number from 1 on` })
}

function cacheType(name: string, value = 'f16'): number {
  const id = typeId(value)
  if (id === F16 || id === F32) return id
  throw new KvasirError('usage', { reason: `${name} is '${value}'; keys and values are cached as f16 or f32` })
}
