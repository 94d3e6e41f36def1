/**
 * What every key gets from the queries of a step: the sums of the columns of the probabilities. And dense attention that
 * tells them while it reads a prompt, where flash attention, which is faster, tells nothing.
 *
 * The probabilities of a prompt would fill H·n·T·4 bytes, so they are computed in blocks, some queries of some KV heads at a
 * time, small enough for the processor's cache; products and softmax read and write them several times.
 */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import { roundUp, TILE } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import type { Kept, ReadResult, Step, StepPart } from './method.ts'
import { ungroupHeads } from './pieces.ts'

/** Probabilities of a block. */
const BLOCK_BYTES = 8 * 2 ** 20
/** Queries of a block: keys that lie in the future of all of them are not computed, but for what makes rows even. */
const MOST_QUERIES = 64
const ROW_STEP = 32
/** Blocks that a part may take per layer, where heads are fewer. */
const MOST_BLOCKS = 128
const MOST_TOKENS = 1024
const NODES_PER_BLOCK = 24

interface Blocks {
  /** Queries and KV heads of a block. */
  readonly nQueries: number
  readonly nHeads: number
}

/** Some queries of few heads rather than one query of many heads: a product wants rows. */
export function blocksOf({ nHead, nHeadKv }: ModelShape, nRead: number, nTokens: number): Blocks {
  const perQuery = Float32Array.BYTES_PER_ELEMENT * nRead * (nHead / nHeadKv)
  const nQueries = Math.max(1, Math.min(Math.floor(BLOCK_BYTES / perQuery), MOST_QUERIES, nTokens))
  return { nQueries, nHeads: Math.max(1, Math.min(Math.floor(BLOCK_BYTES / (perQuery * nQueries)), nHeadKv)) }
}

/** Tokens that {@link readPrompt} takes at once after `nRows`: its graph has a limit. */
export function mostTokens(shape: ModelShape, nRows: number): number {
  const { nQueries, nHeads } = blocksOf(shape, roundUp(nRows + MOST_TOKENS, TILE), MOST_TOKENS)
  const nPerHead = Math.max(1, Math.floor(MOST_BLOCKS / Math.ceil(shape.nHeadKv / nHeads)))
  return Math.min(MOST_TOKENS, nPerHead * nQueries)
}

/** Graph nodes of {@link readPrompt} per layer. */
export function promptNodes({ nHeadKv }: ModelShape): number {
  return NODES_PER_BLOCK * (MOST_BLOCKS + nHeadKv)
}

export interface PromptRead {
  readonly kept: Kept
  readonly sums: ColumnSums
  readonly into: Store
}

/** Dense attention in blocks → f32[d · H, n]; the last queries first: theirs are the most keys. Rows lie together from 0 on. */
export function readPrompt(step: Step, { cache, nTokens: n }: StepPart, { kept, sums, into }: PromptRead): Tensor {
  const { g, shape } = step
  const { nHead: H, nHeadKv: G, headDim: d } = shape
  const { q, k, v, nRead } = kept
  const { nQueries, nHeads } = blocksOf(shape, nRead, n)
  const group = H / G
  const { nRows } = cache.rows

  const readHeads = (head: number, h: number): Tensor => {
    const values = valuesOf(g, v, { nRead, head, nHeads: h })
    let outputs: Tensor | null = null // f32[d, queries, g · h]
    for (let end = n; end > 0;) {
      const nq = Math.min(nQueries, end)
      const from = end - nq
      const m = roundUp(nRows + end, ROW_STEP)
      // The query heads of a KV head beside each other, tokens first.
      const some = g.view(q, [d, group * h, nq, 1], [q.nb[1], q.nb[2], q.nb[3]], from * q.nb[2] + head * group * q.nb[1])
      const queries = g.reshape(g.cont(g.permute(some, 0, 2, 1, 3)), d, nq * group, h)
      const keys = g.view(k, [d, m, h, 1], [k.nb[1], k.nb[2], k.nb[3]], head * k.nb[2])
      const scores = g.reshape(g.mulMat(keys, queries), m, nq, group * h)
      const p = g.softMaxExt(g.diagMaskInf(scores, nRows + from), null, 1 / Math.sqrt(d))
      sums.add(into, { p, head, isFirst: end === n })
      const weighed = g.view(values, [m, d, h, 1], [values.nb[1], values.nb[2], values.nb[3]])
      // Expanded at once, so that the memory of its probabilities serves the next block.
      const o = g.expand(g.reshape(g.mulMat(weighed, g.reshape(p, m, nq * group, h)), d, nq, group * h))
      outputs = outputs ? g.concat(o, outputs, 1) : o
      end = from
    }
    return outputs!
  }

  let all = readHeads(0, nHeads)
  for (let head = nHeads; head < G; head += nHeads) all = g.concat(all, readHeads(head, Math.min(nHeads, G - head)), 2)
  return ungroupHeads(step, g.reshape(all, d, n * group, G), n)
}

/** The first values of some heads, contiguous over tokens: [nRead or more, d, nHeads]. */
function valuesOf(g: Step['g'], v: Store, { nRead, head, nHeads }: { nRead: number; head: number; nHeads: number }): Tensor {
  const { order, width } = v.layout
  const n = order === 'columns' ? roundUp(nRead, TILE) : nRead
  const all = order === 'columns' ? v.columns(g, n) : v.rows(g, n)
  const last = order === 'columns' ? 3 : 2
  const [a, b, c, d] = all.ne
  const some = g.view(
    all,
    last === 3 ? [a, b, c, nHeads] : [a, b, nHeads, d],
    [all.nb[1], all.nb[2], all.nb[3]],
    head * all.nb[last],
  )
  const turned = order === 'columns' ? g.permute(some, 0, 2, 1, 3) : g.permute(some, 1, 0, 2, 3)
  return g.reshape(g.cont(turned), n, width, nHeads)
}

/** Records into a graph what every key gets; `width` numbers per key: one of all query heads, or one of each. */
export class ColumnSums {
  readonly #step: Step
  readonly #width: number
  readonly #constants = new Map<string, Tensor>()

  constructor(step: Step, width: number) {
    this.#step = step
    this.#width = width
  }

  /** A block's p f32[m, n, g · h] for KV heads from `head` on; the first block overwrites what an earlier step left. */
  add(into: Store, { p, head, isFirst }: { readonly p: Tensor; readonly head: number; readonly isFirst: boolean }): void {
    const { g } = this.#step
    const sums = this.#sums(p)
    const rows = this.#rows(into, { head, nHeads: sums.ne[2], m: p.ne[0] })
    g.expand(isFirst ? g.cpy(sums, rows) : g.addInplace(rows, sums))
  }

  /** What a read found, over rows 0…nRead - 1. */
  store(into: Store, { values, index }: NonNullable<ReadResult['p']>, nRead: number): void {
    const { g, shape } = this.#step
    const [m, rows, G] = values.ne
    const p = g.reshape(values, m, (rows * G) / shape.nHead, shape.nHead)
    if (index === null) return this.add(into, { p, head: 0, isFirst: true })
    const all = this.#rows(into, { head: 0, nHeads: G, m: nRead })
    g.expand(g.cpy(this.#constant(0, all.ne), all))
    const sums = this.#sums(p)
    const byRow = this.#width === 1 ? g.reshape(sums, 1, m, G) : g.cont(sums)
    g.expand(g.setRows(into.tensor, byRow, index))
  }

  /** p f32[m, n, g · h] → f32[m, 1, h], or of each query head f32[g, m, h]. */
  #sums(p: Tensor): Tensor {
    const { g, shape } = this.#step
    const [m, n, heads] = p.ne
    const group = shape.nHead / shape.nHeadKv
    const h = heads / group
    const perHead = g.reshape(n === 1 ? p : g.outProd(p, this.#constant(1, [1, n, heads, 1])), m, group, h)
    if (this.#width > 1) return g.permute(perHead, 1, 0, 2, 3)
    return group === 1 ? perHead : g.outProd(perHead, this.#constant(1, [1, group, h, 1]))
  }

  /** The first `m` rows of some heads, in the shape of their sums. */
  #rows({ tensor }: Store, { head, nHeads, m }: { readonly head: number; readonly nHeads: number; readonly m: number }): Tensor {
    const [size, row, perHead] = tensor.nb
    const at = head * perHead
    const { g } = this.#step
    if (this.#width === 1) return g.view(tensor, [m, 1, nHeads, 1], [m * size, perHead, nHeads * perHead], at)
    return g.view(tensor, [this.#width, m, nHeads, 1], [row, perHead, nHeads * perHead], at)
  }

  #constant(value: number, ne: Tensor['ne']): Tensor {
    const key = `${value}:${ne.join()}`
    const made = this.#constants.get(key) ?? this.#step.g.input(F32, ne, (data) => data.fill(value))
    this.#constants.set(key, made)
    return made
  }
}
