/** A batch as graphs read it: B sequences of T tokens, and the token that follows each. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32, I32 } from '../ggml/types.ts'

export interface Batch {
  /** T, and B. */
  readonly nTokens: number
  readonly nSequences: number
  /** i32[T · B], sequence after sequence. */
  readonly tokens: Tensor
  /** i32[T · B], from 0 in every sequence. */
  readonly positions: Tensor
  /** f32[T, T]: 0 where a query (dimension 1) may see a key, -∞ for the keys after it. */
  readonly mask: Tensor
  /** f32[nVocab, T · B]: 1 for the token that follows, else 0. */
  readonly targets: Tensor
}

export interface BatchShape {
  readonly nTokens: number
  readonly nSequences: number
  readonly nVocab: number
}

/** Inputs of `g`; before each computation `windows` gives B sequences of T + 1 tokens. */
export function batchInputs(g: Graph, shape: BatchShape, windows: () => readonly Int32Array[]): Batch {
  const { nTokens, nSequences, nVocab } = shape
  const n = nTokens * nSequences
  const tokens = g.input(I32, [n], (data) => {
    for (const [b, window] of windows().entries()) data.set(window.subarray(0, nTokens), b * nTokens)
  })
  const positions = g.input(I32, [n], (data) => {
    for (let i = 0; i < n; i++) data[i] = i % nTokens
  })
  const mask = g.input(F32, [nTokens, nTokens], (data) => {
    for (let i = 0; i < nTokens; i++) {
      data.fill(0, i * nTokens, i * nTokens + i + 1)
      data.fill(-Infinity, i * nTokens + i + 1, (i + 1) * nTokens)
    }
  })
  const targets = g.input(F32, [nVocab, n], (data) => {
    data.fill(0)
    for (const [b, window] of windows().entries())
      for (let t = 0; t < nTokens; t++) data[(b * nTokens + t) * nVocab + window[t + 1]!] = 1
  })
  return { nTokens, nSequences, tokens, positions, mask, targets }
}
