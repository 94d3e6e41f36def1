/** The feed-forward network: down(act(up x)), or gated, down(act(gate x) · up x). */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { type Linear, linear } from './linear.ts'

/** `gelu` is its approximation by tanh. */
export type Activation = 'silu' | 'gelu' | 'relu'

export interface Mlp {
  readonly gate: Linear | null
  readonly up: Linear
  readonly down: Linear
  readonly activation: Activation
}

export function mlp(g: Graph, { gate, up, down, activation }: Mlp, x: Tensor): Tensor {
  const inner = linear(g, up, x)
  if (gate === null) return linear(g, down, activate(g, activation, inner))
  const outer = linear(g, gate, x)
  if (activation === 'silu') return linear(g, down, g.swigluSplit(outer, inner))
  if (activation === 'gelu') return linear(g, down, g.gegluSplit(outer, inner))
  return linear(g, down, g.mul(activate(g, activation, outer), inner))
}

function activate(g: Graph, activation: Activation, x: Tensor): Tensor {
  return activation === 'silu' ? g.silu(x) : activation === 'gelu' ? g.gelu(x) : g.relu(x)
}
