/** y = W x (+ b): W `[nIn, nOut]`, x `[nIn, n]` → `[nOut, n]`. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { I32 } from '../ggml/types.ts'

export interface Linear {
  readonly weight: Tensor
  readonly bias: Tensor | null
}

export function linear(g: Graph, { weight, bias }: Linear, x: Tensor): Tensor {
  const y = g.mulMat(weight, x)
  return bias ? g.add(y, bias) : y
}

/**
 * Some blocks of `size` outputs (ascending), one after another: x `[nIn, n]` → `[size, blocks.length, n]`. Where the rows of W can
 * be multiplied alone only these are, each run of neighbours as a product of its own; `mul_mat_id` saves 4 % for one token and
 * takes up to twice as long for 512.
 */
export function linearBlocks(g: Graph, of: Linear, x: Tensor, { blocks, size }: Blocks): Tensor {
  const n = x.ne[1]
  if (of.weight.isPacked) {
    const y = linear(g, of, x)
    return pickBlocks(g, g.reshape(y, size, y.ne[0] / size, n), blocks)
  }
  const parts = runsOf(blocks).map(({ first, count }) => {
    const rows = (t: Tensor, along: 0 | 1) =>
      g.view(
        t,
        along === 0 ? [count * size, 1, 1, 1] : [t.ne[0], count * size, 1, 1],
        [t.nb[1], t.nb[2], t.nb[3]],
        first * size * t.nb[along],
      )
    const y = g.mulMat(rows(of.weight, 1), x)
    return of.bias ? g.add(y, rows(of.bias, 0)) : y
  })
  return g.reshape(
    parts.reduce((all, part) => g.concat(all, part, 0)),
    size,
    blocks.length,
    n,
  )
}

/** y f32[size, all, n] → f32[size, blocks.length, n]. */
export function pickBlocks(g: Graph, y: Tensor, blocks: readonly number[]): Tensor {
  const index = (data: Int32Array) => data.forEach((_, i) => (data[i] = blocks[i % blocks.length]!))
  const [size, , n] = y.ne
  return g.reshape(g.getRows(y, g.input(I32, [blocks.length, n], index)), size, blocks.length, n)
}

interface Blocks {
  readonly blocks: readonly number[]
  readonly size: number
}

/** Blocks that lie one after another. */
function runsOf(blocks: readonly number[]): { readonly first: number; readonly count: number }[] {
  const runs: { first: number; count: number }[] = []
  for (const block of blocks) {
    const last = runs.at(-1)
    if (last && last.first + last.count === block) last.count++
    else runs.push({ first: block, count: 1 })
  }
  return runs
}
