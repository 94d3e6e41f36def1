/** Normalisation along dimension 0, with learned weights: by the root mean square, or (with `isCentred`) LayerNorm. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'

export interface Norm {
  readonly weight: Tensor
  readonly bias: Tensor | null
  readonly eps: number
  /** The mean is taken off first. */
  readonly isCentred: boolean
}

export function norm(g: Graph, { weight, bias, eps, isCentred }: Norm, x: Tensor): Tensor {
  const y = g.mul(isCentred ? g.norm(x, eps) : g.rmsNorm(x, eps), weight)
  return bias ? g.add(y, bias) : y
}
