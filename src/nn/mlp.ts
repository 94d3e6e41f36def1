/** The gated feed-forward network of Llama: down(silu(gate x) · up x). */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { type Linear, linear } from './linear.ts'

export interface GatedMlp {
  readonly gate: Linear
  readonly up: Linear
  readonly down: Linear
}

export function gatedMlp(g: Graph, mlp: GatedMlp, x: Tensor): Tensor {
  const up = linear(g, mlp.up, x)
  return linear(g, mlp.down, g.swigluSplit(linear(g, mlp.gate, x), up))
}
