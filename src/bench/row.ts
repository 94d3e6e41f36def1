/** A result: llama-bench's keys, then ours. Rows of several sequences also have llama-batched-bench's keys. */
export interface BenchRow {
  readonly build_commit: string
  readonly cpu_info: string
  readonly backends: string
  readonly model_filename: string
  /** Architecture, parameters and type of most weights, e.g. `llama 1.24 B q8_0`. */
  readonly model_type: string
  /** Bytes of all weights, and how many numbers they are. */
  readonly model_size: number
  readonly model_n_params: number
  readonly n_batch: number
  readonly n_ubatch: number
  readonly n_threads: number
  readonly type_k: string
  readonly type_v: string
  /** 1 or 0 for llama.cpp (the faster of the two); -1 where the engine chooses by itself. */
  readonly flash_attn: number
  readonly n_prompt: number
  readonly n_gen: number
  readonly n_depth: number
  /** RFC 3339. */
  readonly test_time: string
  readonly avg_ns: number
  readonly stddev_ns: number
  readonly avg_ts: number
  readonly stddev_ts: number
  readonly samples_ns: readonly number[]
  readonly samples_ts: readonly number[]

  readonly engine: 'kvasir' | 'llama.cpp'
  readonly attention: string
  readonly median_ns: number
  /** Tokens per second in the median run. */
  readonly median_ts: number
  /** Bytes held by keys and values at the end of the test. */
  readonly kv_bytes: number
  /** Resident bytes of the process, less what became resident during the turns of the others. */
  readonly rss_bytes: number
  /** Share of the timed runs that was spent outside ggml's compute; null where it cannot be seen. */
  readonly outside_compute: number | null
  /** Our `median_ts` over llama.cpp's; null without it. */
  readonly vs_llama_cpp: number | null
  readonly batched: BatchedColumns | null
}

/** llama-batched-bench's columns: medians over the runs, seconds and tokens per second of all sequences together. */
export interface BatchedColumns {
  readonly pp: number
  readonly tg: number
  /** Sequences (column B). */
  readonly pl: number
  readonly n_kv: number
  readonly t_pp: number
  readonly speed_pp: number
  readonly t_tg: number
  readonly speed_tg: number
  readonly t: number
  readonly speed: number
}
