/** One request on its way: its cache, how far its prompt has been read, and what it has answered so far. */
import type { Attention } from '../attention/attention.ts'
import { KvasirError } from '../core/errors.ts'
import type { GenerateEvent, GenerateRequest, GenerateResult, StopReason, TokenLogprob } from '../core/request.ts'
import { Detokenizer } from '../text/detokenizer.ts'
import { StopMatcher } from '../text/stop.ts'
import type { Tokenizer } from '../text/tokenizer.ts'
import { Channel } from './channel.ts'
import { logprobOf } from './logprobs.ts'
import type { RunSequence } from './run-sequence.ts'
import type { RunChunk } from './runner.ts'
import { Sampler } from './sampler.ts'
import { strangeToken } from './strange-token.ts'

export interface SequenceSetup {
  readonly tokenizer: Tokenizer
  readonly nVocab: number
  /** Tokens this sequence may have, prompt and answer; Infinity for attention that goes on for ever. */
  readonly nCtx: number
  readonly attention: Attention
  /** Resident bytes of a dense cache with so many tokens. */
  readonly denseBytes: (nTokens: number) => number
  /** Called at once when the request is aborted, from outside a step or within one. */
  readonly onAbort: () => void
}

export class Sequence {
  readonly request: GenerateRequest
  readonly events: Channel<GenerateEvent>
  /** Written by the engine when the sequence is admitted. */
  run: RunSequence | null = null
  readonly times = { queued: performance.now(), started: 0, firstToken: 0, ended: 0 }
  readonly #setup: SequenceSetup
  readonly #sampler: Sampler
  readonly #detokenizer: Detokenizer
  readonly #stop: StopMatcher
  readonly #promptLogprobs: (TokenLogprob | null)[] = []
  #nProcessed = 0
  #nGenerated = 0
  #last = 0
  #ended: { readonly reason: StopReason; readonly word: string | null } | null = null
  /** What remains of the text at the end. */
  #rest = ''
  #result: GenerateResult | null = null

  constructor(request: GenerateRequest, setup: SequenceSetup) {
    this.request = request
    this.#setup = setup
    const { tokenizer } = setup
    const banned = request.ignoreEos ? endTokens(tokenizer) : []
    this.#sampler = new Sampler(request.sampling, banned)
    for (const token of request.prompt) this.#sampler.accept(token)
    this.#detokenizer = new Detokenizer()
    this.#stop = new StopMatcher(request.stop)
    this.events = new Channel(() => this.abort())
    if (request.signal?.aborted) this.abort()
    else request.signal?.addEventListener('abort', this.abort, { once: true })
  }

  get attention(): Attention {
    return this.#setup.attention
  }

  get ended(): boolean {
    return this.#ended !== null
  }

  get result(): GenerateResult | null {
    return this.#result
  }

  /** Tokens of the prompt that are still to be read; 0 once it decodes. */
  get promptLeft(): number {
    return this.request.prompt.length - this.#nProcessed
  }

  readonly abort = (): void => {
    if (this.#ended) return
    this.#end('aborted')
    this.#setup.onAbort()
  }

  /** Its share of the next step: the last token, or up to `budget` tokens of the prompt. */
  chunk(budget: number): RunChunk {
    const sequence = this.run!
    if (this.promptLeft === 0) return { sequence, tokens: [this.#last], logits: 'last' }
    const nTokens = Math.min(budget, sequence.attention.maxChunk(sequence.cache), this.promptLeft)
    const tokens = this.request.prompt.subarray(this.#nProcessed, this.#nProcessed + nTokens)
    const endsPrompt = nTokens === this.promptLeft
    return { sequence, tokens, endsPrompt, logits: this.request.promptLogprobs ? 'all' : endsPrompt ? 'last' : 'none' }
  }

  /** Takes in the results of a step that computed `chunk`. */
  advance(chunk: RunChunk, logits: Float32Array | null): void {
    if (this.#ended) return
    if (this.promptLeft > 0) {
      if (this.request.promptLogprobs && logits) this.#notePrompt(chunk.tokens, logits)
      this.#nProcessed += chunk.tokens.length
      const ms = performance.now() - this.times.started
      this.events.push({ kind: 'progress', processed: this.#nProcessed, total: this.request.prompt.length, ms })
      if (this.promptLeft > 0) return
      this.times.firstToken = performance.now()
      if (this.request.promptLogprobs) this.events.push({ kind: 'prompt', logprobs: this.#promptLogprobs })
      if (this.request.maxTokens === 0) return this.#end('length')
    }
    const { nVocab, tokenizer } = this.#setup
    // A model may have rows for more tokens than its vocabulary: these are never drawn.
    const last = logits!.length - nVocab
    this.#choose(logits!.subarray(last, last + Math.min(nVocab, tokenizer.nVocab)))
  }

  /** The chunk failed to compute. */
  fail(error: unknown): void {
    this.#end('aborted')
    this.events.close(error)
  }

  /** Gives the cache back and tells the reader how it went. */
  finish(): void {
    this.request.signal?.removeEventListener('abort', this.abort)
    this.times.ended = performance.now()
    this.#result = this.#summary()
    this.run?.[Symbol.dispose]()
    this.run = null
    this.events.push({ kind: 'done', text: this.#rest, result: this.#result })
    this.events.close()
  }

  #choose(logits: Float32Array): void {
    const { topLogprobs, maxTokens } = this.request
    const { tokenizer, nCtx } = this.#setup
    const raw = topLogprobs >= 0 ? logits.slice() : null // sampling changes the logits
    const token = this.#sampler.sample(logits)
    this.#sampler.accept(token)
    this.#last = token
    this.#nGenerated++
    if (tokenizer.isEog(token)) return this.#end('stop')
    const { text, stopped } = this.#stop.push(this.#detokenizer.push(tokenizer.piece(token)))
    this.events.push({ kind: 'token', token, text, logprob: raw && logprobOf(raw, token, topLogprobs) })
    if (stopped !== null) return this.#end('stop', stopped)
    if (this.#nGenerated === maxTokens || this.run!.cache.nTokens >= nCtx) this.#end('length')
  }

  #notePrompt(tokens: ArrayLike<number>, logits: Float32Array): void {
    const { nVocab } = this.#setup
    const { prompt, topLogprobs } = this.request
    if (this.#nProcessed === 0) this.#promptLogprobs.push(null)
    for (let i = 0; i < tokens.length; i++) {
      const next = prompt[this.#nProcessed + i + 1]
      if (next === undefined) return
      this.#promptLogprobs.push(logprobOf(logits.subarray(i * nVocab, (i + 1) * nVocab), next, topLogprobs))
    }
  }

  #end(reason: StopReason, word: string | null = null): void {
    if (this.#ended) return
    this.#ended = { reason, word }
    if (word !== null) return
    const { text } = this.#stop.push(this.#detokenizer.flush())
    this.#rest = text + this.#stop.flush()
  }

  #summary(): GenerateResult {
    const { started, firstToken, ended } = this.times
    const cache = this.run?.cache
    const rows = cache?.rows
    const nPrompt = this.#nProcessed
    const promptMs = started === 0 ? 0 : (firstToken || ended) - started
    const predictedMs = firstToken === 0 ? 0 : ended - firstToken
    return {
      stopReason: this.#ended?.reason ?? 'aborted',
      stoppingWord: this.#ended?.word ?? null,
      usage: {
        prompt_tokens: this.request.prompt.length,
        completion_tokens: this.#nGenerated,
        total_tokens: this.request.prompt.length + this.#nGenerated,
        prompt_tokens_details: { cached_tokens: 0 },
        attention: {
          method: this.attention.spec,
          keys_read: this.run?.keysRead ?? 0,
          keys_dense: this.run?.keysDense ?? 0,
          density: this.run && this.run.keysDense > 0 ? this.run.keysRead / this.run.keysDense : 1,
          kept_tokens: rows?.nRows ?? 0,
          evicted_tokens: rows ? rows.nSeen - rows.nRows : 0,
          kv_bytes: cache?.bytesHeld ?? 0,
          kv_bytes_dense: this.#setup.denseBytes(cache?.nTokens ?? 0),
        },
      },
      timings: {
        cache_n: 0,
        prompt_n: nPrompt,
        prompt_ms: promptMs,
        prompt_per_token_ms: ratio(promptMs, nPrompt),
        prompt_per_second: ratio(nPrompt * 1000, promptMs),
        predicted_n: this.#nGenerated,
        predicted_ms: predictedMs,
        predicted_per_token_ms: ratio(predictedMs, this.#nGenerated),
        predicted_per_second: ratio(this.#nGenerated * 1000, predictedMs),
      },
    }
  }
}

function ratio(a: number, b: number): number {
  return b > 0 ? a / b : 0
}

function endTokens(tokenizer: Tokenizer): number[] {
  return Array.from({ length: tokenizer.nVocab }, (_, token) => token).filter((token) => tokenizer.isEog(token))
}

/** Throws unless `request` fits a context of `nCtx` tokens and has room for an answer, and the model has a row for each token. */
export function checkFits(request: GenerateRequest, { nCtx, nVocab }: { readonly nCtx: number; readonly nVocab: number }): void {
  const nPrompt = request.prompt.length
  if (nPrompt === 0) throw new KvasirError('invalid_request', { reason: 'the prompt is empty' })
  const needed = request.maxTokens === 0 ? nPrompt : nPrompt + 1
  if (needed > nCtx) throw new KvasirError('exceed_context_size_error', { n_prompt_tokens: nPrompt, n_ctx: nCtx })
  const strange = strangeToken(request.prompt, nVocab)
  if (strange !== null)
    throw new KvasirError('invalid_request', { reason: `the prompt has token ${strange}, and the model knows ${nVocab}` })
}
