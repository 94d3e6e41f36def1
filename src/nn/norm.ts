/** Normalisation of the residual stream, with learned weights `[nEmbd]`. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'

export interface RmsNorm {
  readonly weight: Tensor
  readonly eps: number
}

export function rmsNorm(g: Graph, { weight, eps }: RmsNorm, x: Tensor): Tensor {
  return g.mul(g.rmsNorm(x, eps), weight)
}
