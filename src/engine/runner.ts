/** One forward pass: some tokens of some sequences in, logits out. */
import { Attention, type CacheTypes } from '../attention/attention.ts'
import type { StepChunk } from '../attention/step.ts'
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting } from '../core/request.ts'
import type { BaseModel, ModelShape } from '../core/shape.ts'
import { Backend, type InPieces } from '../ggml/backend.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { I32 } from '../ggml/types.ts'
import { KvCache } from '../kv/cache.ts'
import { architectureOf } from '../models/architectures.ts'
import type { Model } from '../models/architecture.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import type { WeightSource } from '../weights/source.ts'
import { Uploader, type Weights } from '../weights/upload.ts'
import { Planner, type Recipe } from './plan.ts'
import { RunSequence } from './run-sequence.ts'
import { type SettingFrom, Settings } from './settings.ts'
import { strangeToken } from './strange-token.ts'

/** What one sequence wants of a step. */
export interface RunChunk {
  readonly sequence: RunSequence
  readonly tokens: ArrayLike<number>
  /** Which of these tokens' logits are wanted. */
  readonly logits: 'none' | 'last' | 'all'
  /** False while more of a prompt is to come; methods that choose what to keep then wait. Default true. */
  readonly endsPrompt?: boolean
}

/** What a step gave one sequence: nVocab floats for each token in question, valid until the next step; or why it failed. */
export type RunResult = { readonly logits: Float32Array | null } | { readonly error: unknown }

export interface RunnerOptions {
  readonly nThreads: number
  readonly cacheTypes: CacheTypes
  readonly type?: number | undefined
  readonly repack: boolean
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
  /** Names for files that settings may name. */
  readonly adapters?: BaseModel['resources'] | undefined
}

/** Seconds of steps: recording graphs, filling their inputs, ggml's compute, reading logits, and all of it. */
export interface StepSeconds {
  readonly record: number
  readonly fill: number
  readonly compute: number
  readonly read: number
  readonly step: number
}

/** A chunk as it is planned. */
interface Planned extends StepChunk, RunChunk {}

export class Runner implements Disposable {
  readonly shape: ModelShape
  readonly stats = { steps: 0, stepSeconds: 0, tokens: 0 }
  readonly #model: Model
  readonly #weights: Weights
  readonly #backend: Backend
  readonly #planner: Planner<Planned>
  readonly #types: CacheTypes
  readonly #settings: Settings
  #logits = new Float32Array(0)
  #readSeconds = 0

  private constructor(
    model: Model,
    shape: ModelShape & { readonly base: BaseModel },
    made: { weights: Weights; backend: Backend; types: CacheTypes },
  ) {
    this.#model = model
    this.shape = shape
    this.#settings = new Settings(shape)
    this.#weights = made.weights
    this.#backend = made.backend
    this.#types = made.types
    this.#planner = new Planner(made.backend)
  }

  static async load(source: WeightSource, options: RunnerOptions): Promise<Runner> {
    const architecture = architectureOf(source)
    const hp = architecture.hyperparameters(source)
    const backend = new Backend(options.nThreads)
    try {
      const uploader = new Uploader(source, backend, options)
      const model = architecture.build(hp, source, uploader)
      const weights = await uploader.place(options.onProgress, options.signal)
      const shape = { ...hp.shape, base: baseModel(source, options.adapters ?? {}) }
      return new Runner(model, shape, { weights, backend, types: options.cacheTypes })
    } catch (error) {
      backend[Symbol.dispose]()
      throw error
    }
  }

  get nThreads(): number {
    return this.#backend.nThreads
  }

  get computeSeconds(): number {
    return this.#backend.computeSeconds
  }

  /** Where the seconds of all steps went so far; what is missing is JavaScript of ours and turns of the event loop. */
  get seconds(): StepSeconds {
    return { ...this.#planner.seconds, compute: this.computeSeconds, read: this.#readSeconds, step: this.stats.stepSeconds }
  }

  /** Who computes the graphs of steps piece by piece; null if nobody does. */
  set inPieces(inPieces: InPieces | null) {
    this.#backend.inPieces = inPieces
  }

  get weightBytes(): number {
    return this.#weights.bytes
  }

  /** Scratch memory held now. */
  get scratchBytes(): number {
    return this.#planner.scratchBytes
  }

  /** Bytes that a token adds to a cache of `setting`, before anything is dropped. */
  cacheBytesPerToken(setting: AttentionSetting = 'dense'): number {
    return this.attention(setting).bytesPerToken(this.#types)
  }

  /** Resident bytes of a dense cache with `nTokens`. */
  denseBytes(nTokens: number): number {
    return this.attention('dense').bytesOf(this.#types, nTokens)
  }

  /** A setting, bound to this model; one of a stranger may not name paths. Errors: `attention_invalid`. */
  attention(setting: AttentionSetting, from: SettingFrom = 'owner'): Attention {
    return this.#settings.bind(setting, from)
  }

  /** An empty sequence for up to `nCtx` tokens; dispose it to give its memory back. */
  newSequence(nCtx: number, setting: AttentionSetting | Attention = 'dense'): RunSequence {
    const attention = setting instanceof Attention ? setting : this.attention(setting)
    return new RunSequence(attention, new KvCache(attention.layout(this.#types), attention.capacity(nCtx)))
  }

  /** Like {@link step}, but rejects if any chunk fails. */
  async run(chunks: readonly RunChunk[]): Promise<readonly (Float32Array | null)[]> {
    const results = await this.step(chunks)
    return results.map((result) => {
      if ('error' in result) throw result.error
      return result.logits
    })
  }

  /**
   * Computes the chunks' tokens and stores their keys and values. A chunk that fails has changed nothing, neither its own sequence
   * nor others. Rejects with `aborted` if it is interrupted, and then no sequence has changed. One at a time.
   */
  async step(chunks: readonly RunChunk[]): Promise<readonly RunResult[]> {
    if (chunks.length === 0) throw new Error('a step needs a chunk')
    const start = performance.now()
    const results = chunks.map((chunk): RunResult | null => this.#refused(chunk))
    const sound = chunks.filter((_, i) => results[i] === null)
    const computed = sound.length > 0 ? await this.#compute(sound) : []
    this.stats.steps++
    this.stats.stepSeconds += (performance.now() - start) / 1000
    return results.map((refused) => refused ?? computed.shift()!)
  }

  /** Gives the scratch memory back, until the next step. */
  trim(): void {
    this.#planner.trim()
  }

  /** Ends the running computation at once; its {@link step} rejects with `aborted`. */
  interrupt(): void {
    this.#backend.interrupt()
  }

  /** Why a chunk cannot be computed, or null. */
  #refused({ sequence: { cache, attention }, tokens }: RunChunk): { readonly error: unknown } | null {
    if (tokens.length === 0) throw new Error('a chunk needs a token')
    if (tokens.length > attention.maxChunk(cache)) throw new Error(`${attention.spec} takes fewer tokens at once`)
    const nRows = cache.rows.nRows + tokens.length
    const { nPositions = Infinity } = this.shape
    if (cache.nTokens + tokens.length > nPositions)
      return {
        error: new KvasirError('exceed_context_size_error', {
          n_prompt_tokens: cache.nTokens + tokens.length,
          n_ctx: nPositions,
        }),
      }
    if (nRows > cache.capacity)
      return { error: new KvasirError('exceed_context_size_error', { n_prompt_tokens: nRows, n_ctx: cache.capacity }) }
    const { nVocab } = this.shape
    const strange = strangeToken(tokens, nVocab)
    if (strange === null) return null
    return { error: new KvasirError('invalid_request', { reason: `token ${strange} is not in the vocabulary of ${nVocab}` }) }
  }

  /** If chunks cannot be computed together (memory), each is by itself, so that only those fail that must. */
  async #compute(chunks: readonly RunChunk[]): Promise<RunResult[]> {
    try {
      return await this.#computeTogether(chunks)
    } catch (error) {
      if (error instanceof KvasirError && error.code === 'aborted') throw error
      if (chunks.length === 1) return [{ error }]
      const results: RunResult[] = []
      for (const chunk of chunks) {
        const [result] = await this.#compute([chunk])
        results.push('logits' in result! ? { logits: result.logits?.slice() ?? null } : result!)
      }
      return results
    }
  }

  async #computeTogether(chunks: readonly RunChunk[]): Promise<RunResult[]> {
    const planned = chunks.map((chunk): Planned => {
      const { cache, attention } = chunk.sequence
      return { ...chunk, cache, attention, nTokens: chunk.tokens.length }
    })
    const { graph, output, facts } = this.#planner.plan(planned, this.#recipe(chunks))
    await this.#planner.compute()
    const start = performance.now()
    const logits = output ? this.#read(output, graph.read.bind(graph)) : null
    this.#readSeconds += (performance.now() - start) / 1000
    let at = 0
    return chunks.map((chunk, i) => {
      const n = nOutputs(chunk) * this.shape.nVocab
      at += n
      const ours = n > 0 ? logits!.subarray(at - n, at) : null
      if (ours && !areFinite(ours)) return { error: notNumbers() }
      try {
        chunk.sequence.advance(facts[i]!, chunk.endsPrompt ?? true)
      } catch (error) {
        return { error } // the others have gone on already
      }
      this.stats.tokens += chunk.tokens.length
      return { logits: ours }
    })
  }

  /** The model over the tokens of all chunks. */
  #recipe(chunks: readonly RunChunk[]): Recipe<Planned> {
    return {
      key: chunks.map(({ logits }) => logits).join(),
      record: (step, now) => {
        const { g } = step
        const tokens = g.input(I32, [step.nTokens], (data) => {
          let at = 0
          for (const chunk of now()) for (let i = 0; i < chunk.nTokens; i++) data[at++] = chunk.tokens[i]!
        })
        const nOut = outputsOf(chunks).length
        const outputs = nOut > 0 ? g.input(I32, [nOut], (data) => data.set(outputsOf(now()))) : null
        return this.#model.forward(step, { tokens, outputs })
      },
    }
  }

  #read(output: Tensor, read: (t: Tensor, into: Float32Array) => Float32Array): Float32Array {
    const size = output.ne[0] * output.ne[1]
    if (this.#logits.length < size) this.#logits = new Float32Array(size)
    return read(output, this.#logits)
  }

  [Symbol.dispose](): void {
    this.#planner[Symbol.dispose]()
    this.#weights[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}

/** Read when it is first asked for: most settings do not. */
function baseModel(source: WeightSource, resources: BaseModel['resources']): BaseModel {
  let known: string | undefined
  return {
    path: source.path,
    resources,
    takesPaths: true,
    get fingerprint() {
      return (known ??= fingerprint(source))
    },
  }
}

/**
 * x - x is 0 for numbers and NaN for all else. Every token's logits are looked at, so it is made for speed: four sums that do not
 * wait for each other. A call per number took as long as a layer of a small model.
 */
function areFinite(values: Float32Array): boolean {
  const whole = values.length - (values.length % 4)
  let [a, b, c, d] = [0, 0, 0, 0]
  for (let i = 0; i < whole; i += 4) {
    a += values[i]! - values[i]!
    b += values[i + 1]! - values[i + 1]!
    c += values[i + 2]! - values[i + 2]!
    d += values[i + 3]! - values[i + 3]!
  }
  for (let i = whole; i < values.length; i++) a += values[i]! - values[i]!
  return a + b + c + d === 0
}

function notNumbers(): KvasirError {
  return new KvasirError('compute_failed', { reason: 'the model computed no numbers (NaN or infinite logits)' })
}

function nOutputs({ logits, tokens }: RunChunk): number {
  return logits === 'none' ? 0 : logits === 'last' ? 1 : tokens.length
}

/** Columns whose logits are wanted. */
function outputsOf(chunks: readonly RunChunk[]): number[] {
  const columns: number[] = []
  let end = 0
  for (const chunk of chunks) {
    end += chunk.tokens.length
    for (let column = end - nOutputs(chunk); column < end; column++) columns.push(column)
  }
  return columns
}
