/**
 * An engine without a model, for tests of what stands in front of it: a byte tokenizer, scripted or repeated tokens, and
 * time that tests decide. It honours `maxTokens`, `stop`, `signal`, `nCtx`, `ignoreEos` and the order of events.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { canonicalSpec } from '../../src/attention/spec.ts'
import { KvasirError } from '../../src/core/errors.ts'
import type {
  AttentionSetting,
  BoundAttention,
  GenerateEvent,
  GenerateRequest,
  GenerateResult,
  StopReason,
  TokenLogprob,
} from '../../src/core/request.ts'
import type { EngineStats, FinishedRequest } from '../../src/engine/engine.ts'
import type { ServedEngine } from '../../src/server/served-engine.ts'
import type { ChatTemplate } from '../../src/text/chat-template.ts'
import type { EncodeOptions, Tokenizer } from '../../src/text/tokenizer.ts'
import type { WeightSource } from '../../src/weights/source.ts'

export const EOS = 256
const N_VOCAB = 257

/** Bytes are tokens; `<end>` is the one special token. */
export const byteTokenizer: Tokenizer = {
  nVocab: N_VOCAB,
  bos: null,
  eos: EOS,
  addBos: false,
  isEog: (token) => token === EOS,
  encode(text: string, { parseSpecial = false }: EncodeOptions = {}) {
    const parts = parseSpecial ? text.split('<end>') : [text]
    return Int32Array.from(parts.flatMap((part, i) => [...(i > 0 ? [EOS] : []), ...Buffer.from(part)]))
  },
  piece: (token, special = false) => (token === EOS ? Buffer.from(special ? '<end>' : '') : Buffer.from([token])),
  text: (token) => (token === EOS ? '<end>' : String.fromCharCode(token)),
  decode: (tokens, special = false) =>
    Buffer.concat(Array.from(tokens, (token) => byteTokenizer.piece(token, special))).toString('utf8'),
  [Symbol.dispose]() {},
}

const template = {
  source: '{{ messages }}',
  render: (messages: readonly { role: string; content: string }[], { addGenerationPrompt = true } = {}) =>
    messages.map(({ role, content }) => `${role}: ${content}\n`).join('') + (addGenerationPrompt ? 'assistant: ' : ''),
} as unknown as ChatTemplate

export interface FakeEngineOptions {
  /** What the model says to a request; `<end>` ends it. Left out, it says `a` for ever. */
  readonly script?: (request: GenerateRequest) => string
  readonly nCtx?: number
  readonly nParallel?: number
  /** Milliseconds per step: a token, or a chunk of the prompt. */
  readonly stepMs?: number
  /** Steps that reading the prompt takes, each with a progress event. */
  readonly prefillSteps?: number
  /** Fails instead of the token of this number. */
  readonly failAt?: number
}

export class FakeEngine implements ServedEngine, AsyncDisposable {
  readonly path = '/models/fake.gguf'
  readonly name = 'fake'
  readonly shape = {
    arch: 'fake',
    nLayer: 1,
    nEmbd: 8,
    nHead: 1,
    nHeadKv: 1,
    headDim: 8,
    nFf: 8,
    nVocab: N_VOCAB,
    nCtxTrain: 4096,
    layers: [],
  }
  readonly source = {
    tensors: new Map([['token_embd.weight', { name: 'token_embd.weight', type: 0, ne: [8, N_VOCAB, 1, 1], nBytes: 8224 }]]),
  } as unknown as WeightSource
  readonly tokenizer = byteTokenizer
  readonly template = template
  readonly nThreads = 1
  readonly attention = 'dense'
  readonly nCtx: number
  readonly nParallel: number
  onFinished: ((request: FinishedRequest) => void) | undefined
  /** Requests as they came. */
  readonly requests: GenerateRequest[] = []
  closed = false
  #running = 0
  readonly #waiting = new Set<() => void>()
  #generated = 0
  #prompted = 0
  readonly #options: FakeEngineOptions

  constructor(options: FakeEngineOptions = {}) {
    this.#options = options
    this.nCtx = options.nCtx ?? 4096
    this.nParallel = options.nParallel ?? 4
  }

  bind(setting: AttentionSetting = 'dense'): BoundAttention {
    return { spec: canonicalSpec(setting), mostSeen: (nCtx) => nCtx }
  }

  submit(request: GenerateRequest): AsyncIterableIterator<GenerateEvent> {
    const nCtx = request.nCtx ?? this.nCtx
    const n_prompt_tokens = request.prompt.length
    if (n_prompt_tokens >= nCtx) throw new KvasirError('exceed_context_size_error', { n_prompt_tokens, n_ctx: nCtx })
    this.requests.push(request)
    return this.#run(request, nCtx)
  }

  async *#run(request: GenerateRequest, nCtx: number): AsyncGenerator<GenerateEvent> {
    const arrived = performance.now()
    const { signal, prompt } = request
    if (this.#running >= this.nParallel)
      await new Promise<void>((resolve) => {
        const go = (): void => {
          this.#waiting.delete(go)
          resolve()
        }
        this.#waiting.add(go)
        signal?.addEventListener('abort', go, { once: true })
      })
    this.#running++
    let said: number[] = []
    const finish = (text: string, stopReason: StopReason, stoppingWord: string | null = null): GenerateEvent => ({
      kind: 'done',
      text,
      result: this.#result({ request, said, stopReason, stoppingWord }),
    })
    let reason: StopReason = 'aborted'
    try {
      const { prefillSteps = 1, failAt } = this.#options
      for (let step = 1; step <= prefillSteps; step++) {
        if (await this.#step(signal)) return yield finish('', 'aborted')
        if (prefillSteps > 1)
          yield { kind: 'progress', processed: Math.round((prompt.length * step) / prefillSteps), total: prompt.length, ms: step }
      }
      this.#prompted += prompt.length
      if (request.promptLogprobs)
        yield { kind: 'prompt', logprobs: Array.from(prompt, (token, i) => (i === 0 ? null : fakeLogprob(token, request))) }
      const room = nCtx - prompt.length
      const limit = request.maxTokens === -1 ? room : Math.min(request.maxTokens, room)
      const script = this.#options.script?.(request)
      const tokens = script === undefined ? null : this.tokenizer.encode(script, { parseSpecial: true })
      const decoder = new TextDecoder()
      let pending = ''
      while (said.length < limit) {
        if (await this.#step(signal)) return yield finish('', 'aborted')
        if (said.length === failAt) throw new KvasirError('compute_failed', { reason: 'a test wanted it' })
        const token = tokens === null ? 97 : (tokens[said.length] ?? EOS)
        said = [...said, token]
        this.#generated++
        if (token === EOS && !request.ignoreEos) {
          reason = 'stop'
          return yield finish(pending, 'stop')
        }
        pending += decoder.decode(this.tokenizer.piece(token), { stream: true })
        const word = request.stop.find((stop) => pending.includes(stop))
        if (word !== undefined) {
          reason = 'stop'
          yield { kind: 'token', token, text: pending.slice(0, pending.indexOf(word)), logprob: logprobOf(token, request) }
          return yield finish('', 'stop', word)
        }
        const held = request.stop.some((stop) => startsInside(pending, stop)) ? pending : ''
        yield { kind: 'token', token, text: pending.slice(0, pending.length - held.length), logprob: logprobOf(token, request) }
        pending = held
      }
      reason = 'length'
      yield finish(pending, 'length')
    } finally {
      this.#running--
      for (const go of [...this.#waiting].slice(0, 1)) go()
      const totalSeconds = (performance.now() - arrived) / 1000
      const result = this.#result({ request, said, stopReason: reason, stoppingWord: null })
      this.onFinished?.({ ...result, queueSeconds: 0, firstTokenSeconds: totalSeconds, totalSeconds })
    }
  }

  /** One step of time; true if the request was aborted meanwhile. */
  async #step(signal: AbortSignal | undefined): Promise<boolean> {
    if (signal?.aborted) return true
    const { stepMs = 0 } = this.#options
    await (stepMs > 0 ? sleep(stepMs) : Promise.resolve())
    return signal?.aborted ?? false
  }

  #result(of: {
    request: GenerateRequest
    said: readonly number[]
    stopReason: StopReason
    stoppingWord: string | null
  }): GenerateResult {
    const prompt_tokens = of.request.prompt.length
    const completion_tokens = of.said.length
    const kept_tokens = prompt_tokens + completion_tokens
    const bytes = 64 * kept_tokens
    return {
      stopReason: of.stopReason,
      stoppingWord: of.stoppingWord,
      usage: {
        prompt_tokens,
        completion_tokens,
        total_tokens: kept_tokens,
        prompt_tokens_details: { cached_tokens: 0 },
        attention: {
          method: 'dense',
          keys_read: 100,
          keys_dense: 100,
          density: 1,
          kept_tokens,
          evicted_tokens: 0,
          kv_bytes: bytes,
          kv_bytes_dense: bytes,
        },
      },
      timings: {
        cache_n: 0,
        prompt_n: prompt_tokens,
        prompt_ms: 10,
        prompt_per_token_ms: 10 / prompt_tokens,
        prompt_per_second: 100 * prompt_tokens,
        predicted_n: completion_tokens,
        predicted_ms: 20,
        predicted_per_token_ms: completion_tokens === 0 ? 0 : 20 / completion_tokens,
        predicted_per_second: 50 * completion_tokens,
      },
    }
  }

  stats(): EngineStats {
    return {
      requestsRunning: this.#running,
      requestsWaiting: this.#waiting.size,
      promptTokens: this.#prompted,
      generatedTokens: this.#generated,
      promptSeconds: 0,
      generatedSeconds: 0,
      steps: this.#generated,
      computeSeconds: 0,
      stepSeconds: 0,
      kvBytes: 64 * this.#running,
      kvBytesPerToken: 64,
      weightBytes: 8224,
      computeBytes: 0,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closed = true
  }
}

function startsInside(text: string, stop: string): boolean {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--)
    if (stop.startsWith(text.slice(-length))) return true
  return false
}

/** The token itself at ln 1/2, then the bytes after it. */
function fakeLogprob(token: number, request: GenerateRequest): TokenLogprob {
  const top = Array.from({ length: Math.max(0, request.topLogprobs) }, (_, i) => ({
    token: (token + i) % N_VOCAB,
    logprob: Math.log(0.5 ** (i + 1)),
  }))
  return { token, logprob: Math.log(0.5), top }
}

function logprobOf(token: number, request: GenerateRequest): TokenLogprob | null {
  return request.topLogprobs < 0 ? null : fakeLogprob(token, request)
}
