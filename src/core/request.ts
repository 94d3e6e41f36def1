/** What is asked of the engine and what it answers: the nouns that server, command line, library and benchmarks share. */
import type { SamplingParams } from './sampling.ts'

/**
 * How attention is to be computed: `hip`, `streaming:window=1020+sparq`, `{"method":"sparq","k":64}`, or an array of these.
 * `kvasir methods` lists what there is.
 */
export type AttentionSetting = string | MethodSetting | readonly (string | MethodSetting)[]

export interface MethodSetting {
  readonly method: string
  readonly [option: string]: unknown
}

/** A setting that was parsed, found to serve the model, and bound to it; that is done once per request. */
export interface BoundAttention {
  /** As it is written, with the options that are not the defaults. */
  readonly spec: string
  /** Tokens that a sequence may have in a context of `nCtx`; Infinity if it can go on for ever. */
  mostSeen(nCtx: number): number
}

export interface GenerateRequest {
  /** Token ids of the prompt, special tokens included. Never empty. */
  readonly prompt: Int32Array
  /** At most this many new tokens; -1 is until the context is full. */
  readonly maxTokens: number
  /** Text that ends the answer; it is not part of it. */
  readonly stop: readonly string[]
  readonly sampling: SamplingParams
  /** How many alternatives to report per token; -1 reports no probabilities at all, 0 only the chosen token's. */
  readonly topLogprobs: number
  /** Report the log-probabilities of the prompt's own tokens too (`echo` with `logprobs`). */
  readonly promptLogprobs: boolean
  /** Go on after an end-of-generation token (benchmarks). */
  readonly ignoreEos: boolean
  /** Context of this request in tokens; never more than the engine's. */
  readonly nCtx?: number | undefined
  /** Instead of the engine's own setting. */
  readonly attention?: BoundAttention | undefined
  readonly signal?: AbortSignal | undefined
}

export interface TokenLogprob {
  readonly token: number
  /** Natural logarithm, of the model's own distribution (before temperature and filters). */
  readonly logprob: number
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

export type StopReason = 'stop' | 'length' | 'aborted'

/** What the engine emits, in this order: `progress`*, `prompt`, `token`*, `done`. */
export type GenerateEvent =
  | { readonly kind: 'progress'; readonly processed: number; readonly total: number; readonly ms: number }
  | { readonly kind: 'prompt'; readonly logprobs: readonly (TokenLogprob | null)[] }
  | {
      readonly kind: 'token'
      readonly token: number
      /** Text that became certain with this token: whole UTF-8 characters, nothing that might still become a stop string. */
      readonly text: string
      readonly logprob: TokenLogprob | null
    }
  | { readonly kind: 'done'; readonly text: string; readonly result: GenerateResult }

export interface GenerateResult {
  readonly stopReason: StopReason
  /** The stop string that ended it, if one did. */
  readonly stoppingWord: string | null
  readonly usage: Usage
  readonly timings: Timings
}

/** OpenAI's `usage`, with what attention did under one key. */
export interface Usage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
  readonly prompt_tokens_details: { readonly cached_tokens: number }
  readonly attention: AttentionUsage
}

/** Measured cost of a request's attention; keys are counted once per query token, layer and KV head. */
export interface AttentionUsage {
  readonly method: string
  readonly keys_read: number
  readonly keys_dense: number
  readonly density: number
  readonly kept_tokens: number
  readonly evicted_tokens: number
  /** Resident bytes of the sequence's cache at its end. */
  readonly kv_bytes: number
  readonly kv_bytes_dense: number
}

/** llama.cpp's `timings`. */
export interface Timings {
  readonly cache_n: number
  readonly prompt_n: number
  readonly prompt_ms: number
  readonly prompt_per_token_ms: number
  readonly prompt_per_second: number
  readonly predicted_n: number
  readonly predicted_ms: number
  readonly predicted_per_token_ms: number
  readonly predicted_per_second: number
}
