/** An engine as a benchmark sees it: sequences that tokens are appended to, step by step. */
export interface Contender extends Disposable {
  readonly engine: 'kvasir' | 'llama.cpp'
  readonly attention: string
  /** 1, 0, or -1 where the engine chooses. */
  readonly flashAttn: number
  /** Appends tokens to sequences, at most `nBatch` in all and one part for each. */
  step(parts: readonly StepTokens[]): Promise<void>
  /** Cuts every sequence back to `nTokens`; false, with nothing done, where they hold fewer or have lost rows on the way. */
  truncate(nTokens: number): boolean
  /** Empties every sequence. */
  clear(): void
  kvBytes(): number
  /** Seconds inside ggml's compute so far; null where it cannot be seen. */
  computeSeconds(): number | null
}

export interface StepTokens {
  readonly seq: number
  readonly tokens: Int32Array
  /** The last token's logits are wanted: it ends a prompt, or follows one. */
  readonly logits: boolean
}

/** What a contender is given to hold: `nSeq` sequences of up to `nCtx` tokens. */
export interface Seats {
  readonly nSeq: number
  readonly nCtx: number
}

/** `kvasir`, `llama.cpp -fa 1`; the attention of ours stands in a column of its own. */
export function contenderName({ engine, flashAttn }: Pick<Contender, 'engine' | 'flashAttn'>): string {
  return flashAttn < 0 ? engine : `${engine} -fa ${flashAttn}`
}
