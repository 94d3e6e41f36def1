/** What a profile says; seconds are of a lap: a whole prompt, or one token. */
import type { PieceTime } from './piece-times.ts'
import type { RowHead } from './results.ts'

export interface Profile extends RowHead {
  readonly tests: readonly TestProfile[]
}

/** Medians over all laps of a test with one attention setting. */
export interface TestProfile {
  readonly attention: string
  readonly n_prompt: number
  readonly n_gen: number
  readonly n_depth: number
  /** Every operation, each computed by itself. */
  readonly pieces: readonly PieceTime[]
  /** What computing anything by itself costs; it is taken off from every operation. */
  readonly piece_cost_seconds: number
  /** All of them computed at once, as always. */
  readonly compute_seconds: number
  /** Recording graphs; a mean, for in decoding it is done once in many tokens. */
  readonly record_seconds: number
  /** Filling the graph's inputs. */
  readonly fill_seconds: number
  /** Reading logits, and looking whether they are numbers. */
  readonly read_seconds: number
  /** What else is between two laps: books of the cache, keys of graphs, turns of the event loop. */
  readonly rest_seconds: number
  /** A lap, computed at once. */
  readonly lap_seconds: number
  /** The fastest computation, and the fastest lap: on a busy machine they say more than medians. */
  readonly compute_seconds_least: number
  readonly lap_seconds_least: number
  readonly versus: Versus | null
}

/** llama.cpp on the same work, with or without flash attention, whichever is faster. */
export interface Versus {
  readonly engine: string
  readonly seconds: number
  readonly seconds_least: number
}
