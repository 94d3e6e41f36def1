/** Products of queries and keys. Shapes: d = dK, H = nHead, G = nHeadKv, g = H / G, n = tokens of a chunk. */
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { F16, F32 } from '../../ggml/types.ts'
import type { Heads } from './heads.ts'

/** Keys per product of a single query. */
const KEYS = 16
/** Elements that ggml's product of f16 rows takes at once; it takes the rest of a row one by one, many times as slowly. */
const LINE = 64

/**
 * Scores of queries f32[d, n · g, G] and keys `[d, m, G]`, not scaled: f32[m, n · g, G].
 *
 * ggml hands threads 16 rows of a product at a time. With keys as rows, threads take turns every 64 bytes of the scores, and
 * lines of memory travel between their caches all the time: two threads are then no faster than one. A single query is
 * therefore multiplied with keys in groups of 16, each group a matrix of its own, of which threads take 16 at a time; the
 * query stands for all of its repetitions.
 */
export function qkScores(g: Graph, heads: Heads, k: Tensor, q: Tensor): Tensor {
  const [d, m, G] = k.ne
  const rows = q.ne[1]
  const H = rows * G
  if (H !== heads.nHead || m % KEYS !== 0 || k.type !== F16) {
    const keys = g.view(k, [d, m, 1, G], [k.nb[1], k.nb[2], k.nb[2]])
    return g.reshape(product(g, heads, keys, g.reshape(q, d, rows, 1, G)), m, rows, G)
  }
  if (d < LINE && LINE % d === 0 && k.nb[1] === d * k.nb[0]) return shortScores(g, k, q)
  const groups = g.view(k, [d, KEYS, m / KEYS, G], [k.nb[1], KEYS * k.nb[1], k.nb[2]])
  const queries = g.broadcast(g.reshape(g.cast(q, F16), d, 1, 1, H), m / KEYS)
  return g.reshape(g.mulMat(groups, queries), m, rows, G)
}

/**
 * The same for a single query and keys of 2 … 32 elements: as many keys as fill a line are one row, which is multiplied with the
 * query in each of their places, and zeros beside it.
 */
function shortScores(g: Graph, k: Tensor, q: Tensor): Tensor {
  const [d, m, G] = k.ne
  const rows = q.ne[1]
  const n = LINE / d
  const repeated = g.repeat(g.reshape(q, d, 1, 1, rows * G), d, n, n, rows * G)
  const placed = g.mul(g.reshape(repeated, LINE, n, rows, G), places(g, d))
  const lines = g.view(k, [LINE, m / n, 1, G], [LINE * k.nb[0], k.nb[2], k.nb[2]])
  return g.reshape(g.mulMat(g.cast(placed, F16), g.broadcast(lines, rows)), m, rows, G)
}

/** f32[LINE, LINE / d]: 1 where element i of a line is of key j, else 0. */
function places(g: Graph, d: number): Tensor {
  const ones = (data: Float32Array) =>
    data.forEach((_, i) => (data[i] = Math.floor((i % LINE) / d) === Math.floor(i / LINE) ? 1 : 0))
  return g.once(`places:${d}`, () => g.input(F32, [LINE, LINE / d], ones))
}

/**
 * a[n, m, t, G] · b[n, rows, t, G] → f32[m, rows, t, G]. The rows of a single query go to dimension 2: products with one row
 * take ggml's plain kernel, where threads meet twice per product; with more they would meet twice per head and tile.
 */
export function product(g: Graph, { nHead, nHeadKv }: Heads, a: Tensor, b: Tensor): Tensor {
  const [n, rows, t, G] = b.ne
  if (rows !== nHead / nHeadKv) return g.mulMat(a, b)
  const single = t === 1 ? g.view(b, [n, 1, rows, G], [b.nb[1], b.nb[1], b.nb[3]]) : g.reshape(g.cont(b), n, 1, rows * t, G)
  return g.reshape(g.mulMat(a, single), a.ne[1], rows, t, G)
}
