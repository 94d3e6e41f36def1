/**
 * llama.cpp's engine, called through libllama in this process: what benchmarks race and what tests compare with.
 * It shares ggml's libraries with our own engine, so both run the same kernels on the same machine.
 */
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from '../ggml/bindings.ts'
import { DEVICE_TYPE_CPU } from '../ggml/backend.ts'
import { ggml, takeGgmlError } from '../ggml/library.ts'
import { llama, type LlamaBatch } from '../ggml/libllama.ts'
import { Threadpool } from '../ggml/threadpool.ts'

export const FLASH_ATTENTION = { auto: -1, off: 0, on: 1 } as const
export type FlashAttention = keyof typeof FLASH_ATTENTION

export interface LlamaContextOptions {
  /** Tokens each sequence can hold. */
  readonly nCtx: number
  readonly nSeqMax?: number
  /** Tokens per decode at most, and per graph. */
  readonly nBatch?: number
  readonly nUbatch?: number
  readonly nThreads: number
  readonly flashAttention?: FlashAttention
  /** ggml type ids of cached keys and values; f16 (1) if left out. */
  readonly typeK?: number
  readonly typeV?: number
}

/** Tokens of one sequence, the first at position `pos`. */
export interface LlamaPart {
  readonly seq: number
  readonly pos: number
  readonly tokens: ArrayLike<number>
  readonly logits: 'none' | 'last' | 'all'
}

/** A model loaded by libllama. Its contexts must be disposed before it. */
export class LlamaModel implements Disposable {
  readonly pointer: Pointer
  readonly vocab: Pointer
  readonly nVocab: number

  /** `repack` allows the processor's own layouts of weights. Throws `model_invalid` with libllama's reason. */
  constructor(path: string, repack = true) {
    const api = llama()
    takeGgmlError()
    const params = { ...api.llama_model_default_params(), n_gpu_layers: 0, use_extra_bufts: repack }
    const pointer = api.llama_model_load_from_file(path, params)
    if (pointer === null) throw new KvasirError('model_invalid', { path, reason: takeGgmlError() || 'libllama refused it' })
    this.pointer = pointer
    this.vocab = api.llama_model_get_vocab(pointer)
    this.nVocab = api.llama_vocab_n_tokens(this.vocab)
  }

  newContext(options: LlamaContextOptions): LlamaContext {
    return new LlamaContext(this, options)
  }

  [Symbol.dispose](): void {
    llama().llama_model_free(this.pointer)
  }
}

/** A cache and the scratch memory to run steps with. */
export class LlamaContext implements Disposable {
  readonly nVocab: number
  readonly nBatch: number
  /** Tokens its caches have room for, all sequences together. */
  readonly nCtx: number
  readonly #context: Pointer
  readonly #memory: Pointer
  readonly #threads: Threadpool
  /** Sequence ids and their addresses: `llama_batch` wants a pointer per token. */
  readonly #seqIds: Int32Array
  readonly #seqAddresses: BigInt64Array

  constructor(model: LlamaModel, options: LlamaContextOptions) {
    const api = llama()
    const nSeqMax = options.nSeqMax ?? 1
    takeGgmlError()
    const context = api.llama_init_from_model(model.pointer, {
      ...api.llama_context_default_params(),
      n_ctx: options.nCtx * nSeqMax, // shared out evenly among the sequences
      n_seq_max: nSeqMax,
      n_batch: options.nBatch ?? 2048,
      n_ubatch: options.nUbatch ?? 512,
      n_threads: options.nThreads,
      n_threads_batch: options.nThreads,
      flash_attn_type: FLASH_ATTENTION[options.flashAttention ?? 'auto'],
      type_k: options.typeK ?? 1,
      type_v: options.typeV ?? 1,
      no_perf: true,
    })
    if (context === null) throw new KvasirError('compute_failed', { reason: takeGgmlError() || 'libllama made no context' })
    this.nVocab = model.nVocab
    this.#context = context
    this.#memory = api.llama_get_memory(context)
    this.nCtx = api.llama_n_ctx(context)
    this.nBatch = Math.min(options.nBatch ?? 2048, this.nCtx) // as libllama does; more would end the process
    this.#threads = new Threadpool(ggml().ggml_backend_dev_by_type(DEVICE_TYPE_CPU)!, options.nThreads)
    api.llama_attach_threadpool(context, this.#threads.pointer, null)
    this.#seqIds = Int32Array.from({ length: nSeqMax }, (_, seq) => seq)
    const base = koffi.address(this.#seqIds)
    this.#seqAddresses = BigInt64Array.from({ length: nSeqMax }, (_, seq) => base + BigInt(4 * seq))
  }

  /** One decode of at most `nBatch` tokens; blocks until it is computed. Throws `compute_failed`. */
  decode(parts: readonly LlamaPart[]): void {
    const api = llama()
    this.#check(api.llama_decode(this.#context, this.#batch(parts)))
    api.llama_synchronize(this.#context)
  }

  /** The same on a worker thread of Node; nothing else may touch the context until it resolves. */
  async decodeAsync(parts: readonly LlamaPart[]): Promise<void> {
    const api = llama()
    const batch = this.#batch(parts)
    const status = await new Promise<number>((resolve, reject) => {
      api.llama_decode.async(this.#context, batch, (error: unknown, result: number) => (error ? reject(error) : resolve(result)))
    })
    this.#check(status)
    api.llama_synchronize(this.#context)
  }

  /** Logits after token `row` of the last decode (-1 is the last that has some): `nVocab` floats, valid until the next decode. */
  logits(row = -1): Float32Array {
    const pointer = llama().llama_get_logits_ith(this.#context, row)
    if (pointer === null) throw new Error(`token ${row} of the last decode has no logits`)
    return new Float32Array(koffi.view(pointer, this.nVocab * 4))
  }

  /** Forgets what sequence `seq` holds from position `pos` on. */
  truncate(seq: number, pos: number): void {
    llama().llama_memory_seq_rm(this.#memory, seq, pos, -1)
  }

  clear(): void {
    llama().llama_memory_clear(this.#memory, false)
  }

  [Symbol.dispose](): void {
    llama().llama_free(this.#context)
    this.#threads[Symbol.dispose]()
  }

  #batch(parts: readonly LlamaPart[]): LlamaBatch {
    const n = parts.reduce((sum, part) => sum + part.tokens.length, 0)
    if (n > this.nBatch) throw new Error(`${n} tokens in one decode of at most ${this.nBatch}`)
    const token = new Int32Array(n)
    const pos = new Int32Array(n)
    const seqId = new BigInt64Array(n)
    const logits = new Int8Array(n)
    let at = 0
    for (const part of parts) {
      for (let i = 0; i < part.tokens.length; i++, at++) {
        token[at] = part.tokens[i]!
        pos[at] = part.pos + i
        seqId[at] = this.#seqAddresses[part.seq]!
        logits[at] = part.logits === 'all' ? 1 : 0
      }
      if (part.logits === 'last') logits[at - 1] = 1
    }
    return { n_tokens: n, token, embd: null, pos, n_seq_id: new Int32Array(n).fill(1), seq_id: seqId, logits }
  }

  #check(status: number): void {
    if (status !== 0) throw new KvasirError('compute_failed', { reason: takeGgmlError() || `llama_decode gave ${status}` })
  }
}
