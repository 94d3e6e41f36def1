/**
 * Dense attention that tells the sums of its probabilities while it reads a prompt; flash attention, which is faster, tells nothing.
 *
 * The probabilities of a prompt would fill H·n·T·4 bytes, so they are computed in blocks, some queries of some KV heads at a
 * time, small enough for the processor's cache; products and softmax read and write them several times.
 */
import type { LayerShape } from '../../core/shape.ts'
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { roundUp, TILE } from '../../kv/layout.ts'
import type { Store } from '../../kv/store.ts'
import { type Heads, ungroupHeads } from '../kernels/heads.ts'
import { capped } from '../kernels/softmax.ts'
import type { AttentionLayer, KvView } from '../method.ts'
import { addSums } from './column-sums.ts'

/** Probabilities of a block. */
const BLOCK_BYTES = 8 * 2 ** 20
/** Queries of a block: keys that lie in the future of all of them are not computed, but for what makes rows even. */
const MOST_QUERIES = 64
const ROW_STEP = 32
/** Blocks that a chunk may take per layer, where heads are fewer: each is a dozen tensors of the graph. */
const MOST_BLOCKS = 128
const MOST_TOKENS = 1024

interface Blocks {
  /** Queries and KV heads of a block. */
  readonly nQueries: number
  readonly nHeads: number
}

/** Some queries of few heads rather than one query of many heads: a product wants rows. */
function blocksOf({ nHead, nHeadKv }: Heads, nKv: number, nTokens: number): Blocks {
  const perQuery = Float32Array.BYTES_PER_ELEMENT * nKv * (nHead / nHeadKv)
  const nQueries = Math.max(1, Math.min(Math.floor(BLOCK_BYTES / perQuery), MOST_QUERIES, nTokens))
  return { nQueries, nHeads: Math.max(1, Math.min(Math.floor(BLOCK_BYTES / (perQuery * nQueries)), nHeadKv)) }
}

/** Tokens that {@link readInBlocks} takes at once after `nRows`, in every one of some layers. */
export function mostInBlocks(layers: readonly LayerShape[], nRows: number): number {
  const inLayer = (layer: LayerShape) => {
    const { nQueries, nHeads } = blocksOf(layer, roundUp(nRows + MOST_TOKENS, TILE), MOST_TOKENS)
    return nQueries * Math.max(1, Math.floor(MOST_BLOCKS / Math.ceil(layer.nHeadKv / nHeads)))
  }
  return Math.min(MOST_TOKENS, ...layers.map(inLayer))
}

/**
 * Attention over a view → f32[dV · H, n], and what every key gets into a store (column-sums.ts); the last queries first: theirs
 * are the most keys. `nBefore` rows were there before the queries' own, and lie together from 0 on.
 */
export function readInBlocks(
  g: Graph,
  { layer, q, k, v, nKv }: KvView,
  { into, nBefore }: { into: Store; nBefore: number },
): Tensor {
  const { nHead: H, nHeadKv: G, dK, dV } = layer
  const n = q.ne[2]
  const { nQueries, nHeads } = blocksOf(layer, nKv, n)
  const group = H / G

  const readHeads = (head: number, h: number): Tensor => {
    const values = valuesOf(g, v, { nKv, head, nHeads: h })
    let outputs: Tensor | null = null // f32[dV, queries, g · h]
    for (let end = n; end > 0;) {
      const nq = Math.min(nQueries, end)
      const from = end - nq
      const m = roundUp(nBefore + end, ROW_STEP)
      // The query heads of a KV head beside each other, tokens first.
      const some = g.view(q, [dK, group * h, nq, 1], [q.nb[1], q.nb[2], q.nb[3]], from * q.nb[2] + head * group * q.nb[1])
      const queries = g.reshape(g.cont(g.permute(some, 0, 2, 1, 3)), dK, nq * group, h)
      const keys = g.view(k, [dK, m, h, 1], [k.nb[1], k.nb[2], k.nb[3]], head * k.nb[2])
      const scores = g.reshape(g.mulMat(keys, queries), m, nq, group * h)
      const p = g.reshape(causalSoftmax(g, layer, scores, { head: head * group, nPast: nBefore + from }), m, nq * group, h)
      addSums(g, into, { p, n: nq, head }, end === n)
      const weighed = g.view(values, [m, dV, h, 1], [values.nb[1], values.nb[2], values.nb[3]])
      // Expanded at once, so that the memory of its probabilities serves the next block.
      const o = g.expand(g.reshape(g.mulMat(weighed, p), dV, nq, group * h))
      outputs = outputs ? g.concat(o, outputs, 1) : o
      end = from
    }
    return outputs!
  }

  let all = readHeads(0, nHeads)
  for (let head = nHeads; head < G; head += nHeads) all = g.concat(all, readHeads(head, Math.min(nHeads, G - head)), 2)
  return ungroupHeads(g, layer, g.reshape(all, dV, n * group, G), n)
}

/** softmax of scores f32[m, n, heads] of query heads from `head` on, where query i sees the first `nPast` + i + 1 keys. */
function causalSoftmax(
  g: Graph,
  layer: AttentionLayer,
  scores: Tensor,
  { head, nPast }: { head: number; nPast: number },
): Tensor {
  const { sinks } = layer
  const { x, scale } = capped(g, layer, scores)
  const some = sinks && g.view(sinks, [scores.ne[2], 1, 1, 1], [sinks.nb[1], sinks.nb[2], sinks.nb[3]], head * sinks.nb[0])
  return g.softMaxExt(g.diagMaskInf(x, nPast), null, scale, some)
}

/** The first values of some heads, contiguous over tokens: [nKv or more, dV, nHeads]. */
function valuesOf(g: Graph, v: Store, { nKv, head, nHeads }: { nKv: number; head: number; nHeads: number }): Tensor {
  const { order, width } = v.layout
  const isTransposed = order === 'transposed'
  const n = isTransposed ? roundUp(nKv, TILE) : nKv
  const all = isTransposed ? v.tiles(g, n) : v.rows(g, n)
  const [a, b, c, d] = all.ne
  const ofHeads = isTransposed ? ([a, b, c, nHeads] as const) : ([a, b, nHeads, d] as const)
  const some = g.view(all, ofHeads, [all.nb[1], all.nb[2], all.nb[3]], head * all.nb[isTransposed ? 3 : 2])
  const turned = isTransposed ? g.permute(some, 0, 2, 1, 3) : g.permute(some, 1, 0, 2, 3)
  return g.reshape(g.cont(turned), n, width, nHeads)
}
