/** The order of heads in a step's tensors. Shapes: H = nHead, G = nHeadKv, g = H / G, n = tokens of a chunk. */
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import type { LayerShape } from '../../core/shape.ts'

export type Heads = Pick<LayerShape, 'nHead' | 'nHeadKv'>

/** f32[d, H, n] → f32[d, n · g, G]: the query heads of a KV head as rows beside each other, tokens first. */
export function groupHeads(g: Graph, { nHead: H, nHeadKv: G }: Heads, q: Tensor): Tensor {
  const [d, , n] = q.ne
  return g.reshape(n === 1 ? q : g.cont(g.permute(q, 0, 2, 1, 3)), d, (n * H) / G, G)
}

/** f32[d, n · g, G] → f32[d · H, n]. */
export function ungroupHeads(g: Graph, { nHead: H }: Heads, o: Tensor, n: number): Tensor {
  const d = o.ne[0]
  const heads = g.reshape(o, d, n, H)
  return g.reshape(n === 1 ? heads : g.cont(g.permute(heads, 0, 2, 1, 3)), d * H, n)
}

/** Tensors one behind the other along `dim`, joined in pairs: no element is copied more than a few times. */
export function concatAll(g: Graph, parts: readonly Tensor[], dim: 0 | 1 | 2 | 3): Tensor {
  if (parts.length === 1) return parts[0]!
  const half = parts.length >> 1
  return g.concat(concatAll(g, parts.slice(0, half), dim), concatAll(g, parts.slice(half), dim), dim)
}
