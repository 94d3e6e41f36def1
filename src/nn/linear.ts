/** y = W x (+ b): W `[nIn, nOut]`, x `[nIn, n]` → `[nOut, n]`. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'

export interface Linear {
  readonly weight: Tensor
  readonly bias: Tensor | null
}

export function linear(g: Graph, { weight, bias }: Linear, x: Tensor): Tensor {
  const y = g.mulMat(weight, x)
  return bias ? g.add(y, bias) : y
}
