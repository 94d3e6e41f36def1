/** An engine as a benchmark sees it: sequences that tokens are appended to, step by step. */
export interface Contender extends Disposable {
  readonly engine: 'kvasir' | 'llama.cpp'
  readonly attention: string
  /** 1, 0, or -1 where the engine chooses. */
  readonly flashAttn: number
  /** Appends tokens to sequences, at most `nBatch` in all; the logits of each part's last token are computed where wanted. */
  step(parts: readonly StepTokens[]): Promise<void>
  /** Drops the newest tokens of every sequence, so that `nTokens` remain. */
  truncate(nTokens: number): void
  kvBytes(): number
  /** Seconds inside ggml's compute so far; null where it cannot be seen. */
  computeSeconds(): number | null
}

export interface StepTokens {
  readonly seq: number
  readonly tokens: Int32Array
  readonly logits: boolean
}

/** What a contender is given to hold: `nSeq` sequences of up to `nCtx` tokens. */
export interface Seats {
  readonly nSeq: number
  readonly nCtx: number
}

/** `kvasir`, `llama.cpp -fa 1`. */
export function contenderName({ engine, flashAttn }: Pick<Contender, 'engine' | 'flashAttn'>): string {
  return flashAttn < 0 ? engine : `${engine} -fa ${flashAttn}`
}
