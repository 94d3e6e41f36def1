/**
 * One forward pass: some tokens of some sequences in, logits out.
 *
 * The linear layers see all tokens side by side, attention works sequence by sequence. A graph is recorded once per shape
 * of a step and computed again while the shape repeats, which in decoding it does for a whole tile of tokens.
 */
import { type Attention, type CacheTypes, cyclesOf, DENSE_ATTENTION, startStep } from '../attention/attention.ts'
import { attentionFor } from '../attention/spec.ts'
import { keysDense, type Step, type StepPart } from '../attention/method.ts'
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting } from '../core/request.ts'
import type { BaseModel, ModelShape } from '../core/shape.ts'
import { Backend } from '../ggml/backend.ts'
import { Graph, Scratch } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { I32 } from '../ggml/types.ts'
import { SequenceCache } from '../kv/cache.ts'
import { bytesPerToken, residentTotal } from '../kv/layout.ts'
import { architectureOf } from '../models/index.ts'
import type { Model } from '../models/model.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import type { WeightSource } from '../weights/source.ts'
import { Uploader, type Weights } from '../weights/upload.ts'

/** What one sequence wants of a step. */
export interface RunPart {
  readonly sequence: RunSequence
  readonly tokens: ArrayLike<number>
  /** Which of these tokens' logits are wanted. */
  readonly logits: 'none' | 'last' | 'all'
  /** False while more of a prompt is to come; methods that choose what to keep then wait. Default true. */
  readonly endsPrompt?: boolean
}

/** A cache, and the attention that fills and reads it. */
export interface RunSequence extends Disposable {
  readonly cache: SequenceCache
  readonly attention: Attention
}

export interface RunnerOptions {
  readonly nThreads: number
  readonly cacheTypes: CacheTypes
  readonly type?: number | undefined
  readonly repack: boolean
  readonly onProgress?: ((fraction: number) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** A recorded graph with what is changed in it between computations. */
interface Plan extends Disposable {
  readonly key: string
  readonly graph: Graph
  readonly logits: Tensor | null
  /** Read by the inputs when they are filled. */
  parts: readonly RunPart[]
  /** What the last computation took. */
  seconds: number
}

/** A step that takes less than this does not hold up a server that anybody would notice. */
const SHORT_SECONDS = 0.05

/** Tensors of a layer and of one sequence's attention in it, generously. */
const NODES_PER_LAYER = 64
const NODES_PER_PART = 48
/** Settings that are remembered; requests may bring any number of them. */
const MOST_ATTENTIONS = 64

export class Runner implements Disposable {
  readonly shape: ModelShape
  readonly stats = { steps: 0, stepSeconds: 0, tokens: 0 }
  readonly #model: Model
  readonly #weights: Weights
  readonly #backend: Backend
  /** Prompts need far more of it than decoding, and nothing in it outlives a step: so it is given back in between. */
  #scratch: Scratch
  #isDecoding = false
  readonly #types: CacheTypes
  readonly #attentions = new Map<string, Attention>()
  #plan: Plan | null = null
  #logits = new Float32Array(0)

  private constructor(model: Model, shape: ModelShape, parts: { weights: Weights; backend: Backend; types: CacheTypes }) {
    this.#model = model
    this.shape = shape
    this.#weights = parts.weights
    this.#backend = parts.backend
    this.#types = parts.types
    this.#scratch = new Scratch(parts.backend.bufferType)
  }

  static async load(source: WeightSource, options: RunnerOptions): Promise<Runner> {
    const architecture = architectureOf(source)
    const hp = architecture.hyperparameters(source)
    const backend = new Backend(options.nThreads)
    try {
      const uploader = new Uploader(source, backend, options)
      const model = architecture.build(hp, source, uploader)
      const weights = await uploader.place(options.onProgress, options.signal)
      const shape = { ...hp.shape, base: baseModel(source) }
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

  get weightBytes(): number {
    return this.#weights.bytes
  }

  /** Scratch memory held now. */
  get scratchBytes(): number {
    return this.#scratch.bytes
  }

  /** Bytes that a token adds to a cache of `setting`, before anything is dropped. */
  cacheBytesPerToken(setting: AttentionSetting = 'dense'): number {
    return bytesPerToken(this.attention(setting).layout(this.shape, this.#types))
  }

  /** Resident bytes of a dense cache with `nTokens`. */
  denseBytes(nTokens: number): number {
    return residentTotal(DENSE_ATTENTION.layout(this.shape, this.#types), nTokens)
  }

  /** The attention of a setting for this model. Errors: `attention_invalid`. */
  attention(setting: AttentionSetting): Attention {
    const made = attentionFor(setting, this.shape)
    const known = this.#attentions.get(made.spec)
    if (known) return known
    if (this.#attentions.size === MOST_ATTENTIONS) this.#attentions.clear()
    this.#attentions.set(made.spec, made)
    return made
  }

  /** An empty sequence for up to `nCtx` tokens; dispose it to give its memory back. */
  newSequence(nCtx: number, setting: AttentionSetting = 'dense'): RunSequence {
    const attention = this.attention(setting)
    const cache = new SequenceCache(attention.layout(this.shape, this.#types), attention.nRows(nCtx))
    return { cache, attention, [Symbol.dispose]: () => cache[Symbol.dispose]() }
  }

  /**
   * Computes the parts' tokens, stores their keys and values, and gives per part the wanted logits: nVocab floats for each
   * token in question, valid until the next run. If it rejects, no cache has changed. One at a time.
   */
  async run(parts: readonly RunPart[]): Promise<readonly (Float32Array | null)[]> {
    const start = performance.now()
    this.#check(parts)
    const plan = this.#planFor(parts)
    plan.graph.fillInputs()
    plan.seconds = await this.#backend.compute(plan.graph, plan.seconds < SHORT_SECONDS)
    const results = this.#read(plan, parts)
    for (const { sequence, tokens, endsPrompt = true } of parts) {
      const { cache, attention } = sequence
      cache.keysDense += keysDense(cache.nTokens, tokens.length) * this.shape.nLayer * this.shape.nHeadKv
      cache.keysRead += attention.keysRead(cache, tokens.length)
      cache.append(tokens.length)
      attention.settle(cache, endsPrompt)
      this.stats.tokens += tokens.length
    }
    this.stats.steps++
    this.stats.stepSeconds += (performance.now() - start) / 1000
    return results
  }

  /** Gives the scratch memory back, until the next run. */
  trim(): void {
    this.#plan?.[Symbol.dispose]()
    this.#plan = null
    this.#scratch[Symbol.dispose]()
    this.#scratch = new Scratch(this.#backend.bufferType)
  }

  /** Ends the running computation at once; its {@link run} rejects with `aborted`. */
  interrupt(): void {
    this.#backend.interrupt()
  }

  #check(parts: readonly RunPart[]): void {
    if (parts.length === 0) throw new Error('a step needs a part')
    for (const { sequence, tokens } of parts) {
      if (tokens.length === 0) throw new Error('a part needs a token')
      const { cache, attention } = sequence
      if (tokens.length > attention.mostTokens(cache)) throw new Error(`${attention.spec} takes fewer tokens at once`)
      const nRows = cache.rows.nRows + tokens.length
      if (nRows > cache.capacity)
        throw new KvasirError('exceed_context_size_error', { n_prompt_tokens: nRows, n_ctx: cache.capacity })
      for (let i = 0; i < tokens.length; i++) {
        const token = tokens[i]!
        if (Number.isInteger(token) && token >= 0 && token < this.shape.nVocab) continue
        throw new KvasirError('invalid_request', { reason: `token ${token} is not in the vocabulary of ${this.shape.nVocab}` })
      }
    }
  }

  #planFor(parts: readonly RunPart[]): Plan {
    const key = parts
      .map(({ sequence: { cache, attention }, tokens, logits }) => `${attention.graphKey(cache, tokens.length)}:${logits}`)
      .join(' ')
    if (this.#plan?.key !== key) {
      const isDecoding = parts.every(({ tokens }) => tokens.length === 1)
      if (isDecoding && !this.#isDecoding) this.trim()
      this.#isDecoding = isDecoding
      this.#plan?.[Symbol.dispose]()
      this.#plan = null
      this.#plan = this.#record(key, parts)
    }
    this.#plan.parts = parts
    return this.#plan
  }

  #record(key: string, parts: readonly RunPart[]): Plan {
    const ofPart = ({ sequence: { attention }, tokens }: RunPart) => NODES_PER_PART + attention.nNodes(tokens.length)
    const cycles = cyclesOf(parts.map(({ sequence: { attention }, tokens }) => ({ attention, nTokens: tokens.length })))
    const nAgain = cycles.reduce((n, { first, last, passes }) => n + (passes - 1) * (last + 1 - first), 0)
    const nNodes = (this.shape.nLayer + nAgain) * (NODES_PER_LAYER + parts.reduce((sum, part) => sum + ofPart(part), 0)) + 64
    const graph = new Graph(nNodes)
    try {
      const plan: Plan = { key, graph, logits: null, parts, seconds: Infinity, [Symbol.dispose]: () => graph[Symbol.dispose]() }
      const nTokens = parts.reduce((sum, { tokens }) => sum + tokens.length, 0)
      const tokens = graph.input(I32, [nTokens], (data) => eachToken(plan.parts, (at, token) => (data[at] = token)))
      const positions = graph.input(I32, [nTokens], (data) => eachToken(plan.parts, (at, _, position) => (data[at] = position)))
      const nOut = outputsOf(parts).length
      const outputs = nOut > 0 ? graph.input(I32, [nOut], (data) => data.set(outputsOf(plan.parts))) : null
      const step: Step = { g: graph, shape: this.shape, nTokens, positions, parts: stepParts(parts), cycles }
      const logits = this.#model.forward(
        step,
        { tokens, outputs },
        startStep(
          step,
          parts.map(({ sequence }) => sequence.attention),
        ),
      )
      if (logits) graph.output(logits)
      graph.plan(this.#scratch)
      return Object.assign(plan, { logits })
    } catch (error) {
      graph[Symbol.dispose]()
      throw error
    }
  }

  #read({ graph, logits }: Plan, parts: readonly RunPart[]): (Float32Array | null)[] {
    if (logits === null) return parts.map(() => null)
    const size = logits.ne[0] * logits.ne[1]
    if (this.#logits.length < size) this.#logits = new Float32Array(size)
    graph.read(logits, this.#logits)
    let at = 0
    return parts.map((part) => {
      const n = nOutputs(part) * logits.ne[0]
      at += n
      return n > 0 ? this.#logits.subarray(at - n, at) : null
    })
  }

  [Symbol.dispose](): void {
    this.#plan?.[Symbol.dispose]()
    this.#plan = null
    this.#scratch[Symbol.dispose]()
    this.#weights[Symbol.dispose]()
    this.#backend[Symbol.dispose]()
  }
}

/** Read when it is first asked for: most settings do not. */
function baseModel(source: WeightSource): BaseModel {
  let known: string | undefined
  return {
    path: source.path,
    get fingerprint() {
      return (known ??= fingerprint(source))
    },
  }
}

function nOutputs({ logits, tokens }: RunPart): number {
  return logits === 'none' ? 0 : logits === 'last' ? 1 : tokens.length
}

/** The parts' columns in the step. */
function stepParts(parts: readonly RunPart[]): StepPart[] {
  let first = 0
  return parts.map((part) => {
    const { cache, attention } = part.sequence
    const nTokens = part.tokens.length
    first += nTokens
    return { cache, first: first - nTokens, nTokens, nRead: attention.nRead(cache, nTokens) }
  })
}

function eachToken(parts: readonly RunPart[], visit: (at: number, token: number, position: number) => void): void {
  let at = 0
  for (const { sequence, tokens } of parts) {
    const { cache } = sequence
    for (let i = 0; i < tokens.length; i++) visit(at++, tokens[i]!, cache.nTokens + i)
  }
}

/** Columns whose logits are wanted. */
function outputsOf(parts: readonly RunPart[]): number[] {
  const columns: number[] = []
  let end = 0
  for (const part of parts) {
    end += part.tokens.length
    for (let column = end - nOutputs(part); column < end; column++) columns.push(column)
  }
  return columns
}
