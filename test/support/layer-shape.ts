/** The layer that attention tests compute. */
export interface LayerShape {
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
}

/** Width of the residual stream. */
export const N_EMBD = 48
export const ROPE_FREQ_BASE = 10_000
