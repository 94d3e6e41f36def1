/** What differs between the endpoints that generate: how a choice is written. */
import type { StopReason, TokenLogprob } from '../core/request.ts'

/** What one choice holds: the whole of it, or what one chunk adds. */
export interface Part {
  readonly text: string
  readonly logprobs: readonly TokenLogprob[]
  /** Of the prompt's own tokens, if they were asked for. */
  readonly promptLogprobs: readonly (TokenLogprob | null)[]
}

export const NOTHING: Part = { text: '', logprobs: [], promptLogprobs: [] }

/** One is made per reply, so that it may keep state. */
export interface Format {
  readonly idPrefix: string
  readonly object: string
  readonly chunkObject: string
  /** The chunk's choice that opens choice `index`; null where there is nothing to say. */
  open(index: number, part: Part): object | null
  piece(index: number, part: Part): object
  close(index: number, reason: StopReason): object
  /** The choice in a reply that is not streamed. */
  whole(index: number, part: Part, reason: StopReason): object
}
