/** libllama on the same file and machine: what our numbers are compared with. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { type FlashAttention, type LlamaContext, LlamaModel } from '../../src/bench/llama-cpp.ts'
import { llama } from '../../src/ggml/libllama.ts'
import { F16 } from '../../src/ggml/types.ts'

export interface ReferenceOptions {
  readonly flashAttention?: FlashAttention
  readonly nThreads?: number
  /** ggml type of cached keys and values; f16 if left out. */
  readonly cacheType?: number
}

/** Threads of ggml wait for each other by spinning: two test files with two threads each take ten times as long as with one. */
export const TEST_THREADS = 1

/** Tokens per step: libllama's default. */
export const CHUNK = 512

/** libllama with a model loaded, reading one text. */
export class Reference implements Disposable {
  readonly #model: LlamaModel
  readonly #context: LlamaContext
  #nTokens = 0

  constructor(path: string, nCtx: number, { cacheType = F16, flashAttention = 'on', nThreads = TEST_THREADS }: ReferenceOptions) {
    this.#model = new LlamaModel(path)
    const types = { typeK: cacheType, typeV: cacheType }
    this.#context = this.#model.newContext({ nCtx, nBatch: CHUNK, nUbatch: CHUNK, nThreads, flashAttention, ...types })
  }

  /** Reads on; gives the logits after the i-th of these tokens, valid until the next call. At most {@link CHUNK} tokens. */
  read(tokens: Int32Array): (i: number) => Float32Array {
    this.#context.decode([{ seq: 0, pos: this.#nTokens, tokens, logits: 'all' }])
    this.#nTokens += tokens.length
    return (i) => this.#context.logits(i)
  }

  [Symbol.dispose](): void {
    this.#context[Symbol.dispose]()
    this.#model[Symbol.dispose]()
  }
}

/** Logits after every token, one array of `nVocab` floats each. */
export function referenceLogits(path: string, tokens: Int32Array, options: ReferenceOptions = {}): Float32Array[] {
  using reference = new Reference(path, tokens.length, options)
  const rows: Float32Array[] = []
  for (let from = 0; from < tokens.length; from += CHUNK) {
    const part = tokens.subarray(from, from + CHUNK)
    const logits = reference.read(part)
    for (let i = 0; i < part.length; i++) rows.push(logits(i).slice())
  }
  return rows
}

/** The `n` tokens libllama continues `prompt` with, always taking the likeliest. */
export function referenceGreedy(
  path: string,
  prompts: readonly Int32Array[],
  n: number,
  options: ReferenceOptions = {},
): number[][] {
  const longest = Math.max(...prompts.map((prompt) => prompt.length))
  using model = new LlamaModel(path)
  using context = model.newContext({
    nCtx: longest + n,
    nThreads: options.nThreads ?? TEST_THREADS,
    flashAttention: options.flashAttention ?? 'on',
  })
  return prompts.map((prompt) => {
    context.clear()
    context.decode([{ seq: 0, pos: 0, tokens: prompt, logits: 'last' }])
    const answer = [argmax(context.logits())]
    while (answer.length < n) {
      const pos = prompt.length + answer.length - 1
      context.decode([{ seq: 0, pos, tokens: [answer.at(-1)!], logits: 'last' }])
      answer.push(argmax(context.logits()))
    }
    return answer
  })
}

/** libllama's ids of `text`; with `addSpecial`, a model's BOS goes before them. */
export function referenceTokens(path: string, text: string, addSpecial = false): Int32Array {
  using model = new LlamaModel(path)
  const bytes = new TextEncoder().encode(text)
  const tokens = new Int32Array(bytes.length + 2)
  return tokens.slice(0, llama().llama_tokenize(model.vocab, bytes, bytes.length, tokens, tokens.length, addSpecial, false))
}

/** `enum llama_ftype`: mixtures that libllama's quantiser makes. */
export const FTYPES = { f32: 0, f16: 1, q4_0: 2, q8_0: 7, q4_k_s: 14, q4_k_m: 15, q6_k: 18, bf16: 32 } as const
export type Ftype = keyof typeof FTYPES

/** Quantises the GGUF file `from` by libllama's own quantiser. `pure` gives every matrix the same type. */
export function quantize(from: string, to: string, ftype: Ftype, pure = false): void {
  const api = llama()
  const params = {
    ...api.llama_model_quantize_default_params(),
    ftype: FTYPES[ftype],
    nthread: TEST_THREADS,
    pure,
    allow_requantize: true,
  }
  const status = api.llama_model_quantize(from, to, params)
  if (status !== 0) throw new Error(`quantising ${basename(from)} to ${ftype} gave ${status}`)
}

/** A folder for the files of a test, removed with all that is in it. */
export class TemporaryFolder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'kvasir-'))

  file(name: string): string {
    return join(this.path, name)
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

/** Natural logarithm of the probability of `token`. */
export function logProbability(logits: Float32Array, token: number): number {
  const top = logits[argmax(logits)]!
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - top)
  return logits[token]! - top - Math.log(sum)
}

export interface Agreement {
  readonly positions: number
  /** Share of positions where both think the same token likeliest. */
  readonly top1: number
  /** Mean and largest difference of the log-probability of the token that follows. */
  readonly meanDelta: number
  readonly maxDelta: number
}

/** Compares logits after each token but the last, which none follows. */
export class AgreementMeter {
  #positions = 0
  #same = 0
  #sum = 0
  #max = 0

  add(ours: Float32Array, reference: Float32Array, next: number): void {
    const delta = Math.abs(logProbability(ours, next) - logProbability(reference, next))
    this.#positions++
    if (argmax(ours) === argmax(reference)) this.#same++
    this.#sum += delta
    this.#max = Math.max(this.#max, delta)
  }

  result(): Agreement {
    const n = this.#positions
    return { positions: n, top1: this.#same / n, meanDelta: this.#sum / n, maxDelta: this.#max }
  }
}
