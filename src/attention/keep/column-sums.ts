/** What every key gets from the queries of a chunk: the sums of the columns of the probabilities, computed in the graph. */
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { F32 } from '../../ggml/types.ts'
import type { Store } from '../../kv/store.ts'
import type { ReadResult } from '../method.ts'

/** Some probabilities f32[m, n · g, h], of KV heads from `head` on and of `n` queries, tokens first. */
export interface SomeProbs {
  readonly p: Tensor
  readonly n: number
  readonly head: number
}

/**
 * Adds what the first m keys get to what stands in `into`, or overwrites that if `isFirst`. A store of width 1 takes the sum
 * over the query heads of a KV head, one of width g the sum of each.
 */
export function addSums(g: Graph, into: Store, some: SomeProbs, isFirst: boolean): void {
  const sums = sumsOf(g, into, some)
  const rows = firstRows(g, into, { head: some.head, nHeads: sums.ne[2], m: some.p.ne[0] })
  g.expand(isFirst ? g.cpy(sums, rows) : g.addInplace(rows, sums))
}

/** What the keys get of what a read found for `n` queries, over the first `nKv` rows. */
export function storeSums(
  g: Graph,
  into: Store,
  { values: p, index }: NonNullable<ReadResult['p']>,
  size: { n: number; nKv: number },
): void {
  const some = { p, n: size.n, head: 0 }
  if (index === null) return addSums(g, into, some, true)
  const [m, , G] = p.ne
  const all = firstRows(g, into, { head: 0, nHeads: G, m: size.nKv })
  g.expand(g.cpy(constant(g, 0, all.ne), all))
  const sums = sumsOf(g, into, some)
  const byRow = into.layout.width === 1 ? g.reshape(sums, 1, m, G) : g.cont(sums)
  g.expand(g.setRows(into.tensor, byRow, index))
}

/** f32[m, 1, h], or of each query head f32[g, m, h]. */
function sumsOf(g: Graph, into: Store, { p, n }: SomeProbs): Tensor {
  const [m, rows, h] = p.ne
  const group = rows / n
  const heads = group * h
  const ofQueries = n === 1 ? p : g.outProd(g.reshape(p, m, n, heads), constant(g, 1, [1, n, heads, 1]))
  const perHead = g.reshape(ofQueries, m, group, h)
  if (into.layout.width > 1) return g.permute(perHead, 1, 0, 2, 3)
  return group === 1 ? perHead : g.outProd(perHead, constant(g, 1, [1, group, h, 1]))
}

/** The first `m` rows of some heads, in the shape of their sums. */
function firstRows(g: Graph, { tensor, layout: { width } }: Store, of: { head: number; nHeads: number; m: number }): Tensor {
  const [size, row, perHead] = tensor.nb
  const at = of.head * perHead
  if (width === 1) return g.view(tensor, [of.m, 1, of.nHeads, 1], [of.m * size, perHead, of.nHeads * perHead], at)
  return g.view(tensor, [width, of.m, of.nHeads, 1], [row, perHead, of.nHeads * perHead], at)
}

function constant(g: Graph, value: number, ne: Tensor['ne']): Tensor {
  return g.once(`all ${value}: ${ne.join()}`, () => g.input(F32, ne, (data) => data.fill(value)))
}
