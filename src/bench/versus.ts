/** llama.cpp as a contender. It is called synchronously, as its own programs call it, so that our call adds about a microsecond. */
import { setImmediate } from 'node:timers/promises'
import type { ModelShape } from '../core/shape.ts'
import { rowBytes, typeId } from '../ggml/types.ts'
import type { Contender, Seats, StepTokens } from './contender.ts'
import type { LlamaContext, LlamaModel } from './llama-cpp.ts'
import type { BenchOptions } from './bench-options.ts'

/** The event loop gets a turn this often, so that Ctrl-C is heard. */
const YIELD_MS = 100

export interface VersusOptions extends Seats {
  readonly options: BenchOptions
  readonly nThreads: number
  readonly flashAttention: 'on' | 'off'
  readonly shape: ModelShape
}

export class LlamaContender implements Contender {
  readonly engine = 'llama.cpp'
  readonly attention = 'dense'
  readonly flashAttn: number
  readonly #context: LlamaContext
  readonly #nTokens: Int32Array
  readonly #kvBytes: number
  #lastYield = performance.now()

  constructor(model: LlamaModel, { options, nThreads, flashAttention, shape, nSeq, nCtx }: VersusOptions) {
    const typeK = typeId(options.typeK)
    const typeV = typeId(options.typeV)
    const { nBatch, nUbatch } = options
    this.flashAttn = flashAttention === 'on' ? 1 : 0
    this.#context = model.newContext({ nCtx, nSeqMax: nSeq, nBatch, nUbatch, nThreads, flashAttention, typeK, typeV })
    this.#nTokens = new Int32Array(nSeq)
    const width = shape.headDim * shape.nHeadKv
    this.#kvBytes = shape.nLayer * this.#context.nCtx * (rowBytes(typeK, width) + rowBytes(typeV, width))
  }

  async step(parts: readonly StepTokens[]): Promise<void> {
    this.#context.decode(
      parts.map(({ seq, tokens, logits }) => ({ seq, pos: this.#nTokens[seq]!, tokens, logits: logits ? 'last' : 'none' })),
    )
    for (const { seq, tokens } of parts) this.#nTokens[seq]! += tokens.length
    if (performance.now() - this.#lastYield < YIELD_MS) return
    await setImmediate()
    this.#lastYield = performance.now()
  }

  truncate(nTokens: number): boolean {
    if (this.#nTokens.some((held) => held < nTokens)) return false
    for (let seq = 0; seq < this.#nTokens.length; seq++) this.#context.truncate(seq, nTokens)
    this.#nTokens.fill(nTokens)
    return true
  }

  clear(): void {
    this.truncate(0)
  }

  /** All of its cache: llama.cpp allocates and clears it when the context is made. */
  kvBytes(): number {
    return this.#kvBytes
  }

  computeSeconds(): null {
    return null
  }

  [Symbol.dispose](): void {
    this.#context[Symbol.dispose]()
  }
}
