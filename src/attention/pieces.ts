/** The pieces methods are made of. Shapes: d = headDim, H = nHead, G = nHeadKv, n = tokens of a part. */
import type { Tensor } from '../ggml/tensor.ts'
import { linear, type Linear } from '../nn/linear.ts'
import type { AttentionLayer, Step, StepPart } from './method.ts'

/** x f32[nEmbd, n] → f32[d, heads, n]. */
export function project({ g, shape }: Step, weights: Linear, x: Tensor): Tensor {
  const y = linear(g, weights, x)
  return g.reshape(y, shape.headDim, y.ne[0] / shape.headDim, y.ne[1])
}

/** Rotates f32[d, heads, nTokens] to the positions of the step. */
export function rotate({ g, positions }: Step, layer: AttentionLayer, x: Tensor): Tensor {
  return g.ropeExt(x, positions, layer.ropeFactors, layer.rope)
}

/** The columns of one part: [d, heads, nTokens] → [d, heads, n]. */
export function slice({ g }: Step, part: StepPart, x: Tensor): Tensor {
  if (part.nTokens === x.ne[2]) return x
  return g.view(x, [x.ne[0], x.ne[1], part.nTokens, 1], [x.nb[1], x.nb[2], x.nb[3]], part.first * x.nb[2])
}

/** The parts' outputs f32[d · H, n] side by side: f32[d · H, nTokens]. */
export function join({ g }: Step, parts: readonly Tensor[]): Tensor {
  return parts.reduce((all, part) => g.concat(all, part, 1))
}

const F16_MINUS_INFINITY = 0xfc00

/** f16[nRead, n]: 0 where a query may see the key of a row, -∞ where the key lies in its future or the row is unused. */
export function causalMask(mask: Uint16Array, { cache, nTokens, nRead }: StepPart): void {
  const { rows } = cache.layers[0]!
  for (let query = 0; query < nTokens; query++) {
    // Rows are ascending by position, and the new tokens take the rows behind the stored ones.
    const visible = rows.nRows + query + 1
    mask.fill(0, query * nRead, query * nRead + visible)
    mask.fill(F16_MINUS_INFINITY, query * nRead + visible, (query + 1) * nRead)
  }
}
