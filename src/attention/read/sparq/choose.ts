/** SparQ's steps 2 to 4: which keys a decoded token reads. Sums over the heads of a group are products with ones. */
import type { Tensor } from '../../../ggml/tensor.ts'
import { F32, I32 } from '../../../ggml/types.ts'
import { TILE } from '../../../kv/layout.ts'
import type { Store } from '../../../kv/store.ts'
import type { Chunk } from '../../chunk.ts'
import { groupHeads } from '../../kernels/heads.ts'
import { qkScores } from '../../kernels/scores.ts'
import { softmax } from '../../kernels/softmax.ts'
import type { AttentionLayer, KvView } from '../../method.ts'

export interface Choice {
  /** Components that the guess goes by. */
  readonly r: number
  /** Keys that are read, and how many of them are the newest. */
  readonly k: number
  readonly nLocal: number
  /** Every layer and head holds the same rows. */
  readonly isWhole: boolean
}

export interface Chosen {
  /** f32[dK, g, G] */
  readonly q: Tensor
  /** i2: rows i32[k, G]. */
  readonly rows: Tensor
  /** ŝ: f32[nKv, g, G]. */
  readonly guess: Tensor
}

/** `kT` are the keys by component, where they are stored so too. */
export function choose(chunk: Chunk, { r, k, nLocal, isWhole }: Choice, view: KvView, kT: Store | undefined): Chosen {
  const { g } = chunk
  const { layer, nKv } = view
  const { nHeadKv: G, dK: d } = layer
  const group = layer.nHead / G
  const ones = constant(chunk, [1, group, G], 1)
  const q = groupHeads(g, layer, view.q)
  const size = g.abs(q)
  // 2: i1, the r largest components of Σ_j |q_j|, and what the queries have there.
  const i1 = g.topK(g.reshape(g.outProd(size, ones), d, G), r) // i32[r, G]
  const each = g.repeat(g.reshape(i1, r, 1, G), r, group, G)
  const some = g.reshape(g.getRows(g.reshape(q, 1, d, group, G), each), r, group, G)
  // 3: ŝ_j = softmax(q_j[i1] · K[:, i1] / τ_j), 1 / τ_j = scale · √(‖q_j‖₁ / ‖q_j[i1]‖₁). The least number is for queries of zeros.
  const norm = (x: Tensor) => g.scaleBias(g.sumRows(x), 1, 1e-30)
  const temperature = g.scale(g.sqrt(g.div(norm(size), norm(g.abs(some)))), layer.scale) // 1 / τ f32[1, g, G]
  const query = { i1, q: g.mul(some, temperature) }
  const scores = kT ? scoresByComponent(chunk, kT, query, nKv) : qkScores(g, layer, view.k, spread(chunk, query, d))
  const guess = softmax(g, { ...layer, scale: 1 }, g.reshape(scores, nKv, group, G), { mask: view.mask, n: 1 })
  // 4: i2, the k largest of Σ_j ŝ_j, the newest before all others: they get more than any sum of probabilities.
  const sum = g.reshape(g.outProd(guess, ones), 1, nKv, G)
  const most = () => constant(chunk, [1, nLocal, G], 2 * group)
  const ranking = nLocal === 0 ? sum : g.setRows(sum, most(), newestRows(chunk, layer, nLocal, isWhole))
  return { q, guess, rows: g.topK(g.reshape(ranking, nKv, G), Math.min(k, nKv)) }
}

/** A query at some components: the components, i32[r, G], and what its heads have there, f32[r, g, G]. */
interface Some {
  readonly i1: Tensor
  readonly q: Tensor
}

/** With zeros in place of all other components: f32[d, g, G]. */
function spread(chunk: Chunk, { i1, q }: Some, d: number): Tensor {
  const { g } = chunk
  const [r, G] = i1.ne
  const isDiagonal = (i: number) => i % (d + 1) === 0
  const unit = chunk.once(`unit:${d}`, () =>
    chunk.input(F32, [d, d], (data) => data.forEach((_, i) => (data[i] = isDiagonal(i) ? 1 : 0))),
  )
  const rows = g.reshape(g.getRows(unit, g.reshape(i1, r * G)), d, r, G)
  return g.outProd(rows, g.permute(q, 1, 0, 2, 3))
}

/** Σ_c q[c] · K[:, c] over tiles of keys by component, in pieces → f32[nKv, H]. */
function scoresByComponent(chunk: Chunk, kT: Store, { i1, q }: Some, nKv: number): Tensor {
  const { g } = chunk
  const [r, group, G] = q.ne
  const H = group * G
  const nTiles = nKv / TILE
  const perTile = Float32Array.BYTES_PER_ELEMENT * TILE * r * G
  const nPiece = Math.min(nTiles, Math.max(1, Math.floor(PIECE_BYTES / perTile), Math.ceil(nTiles / MOST_PIECES)))
  const index = g.repeat(g.reshape(i1, r, 1, G), r, nPiece, G)
  const factors = g.repeat(g.reshape(q, 1, r, 1, H), 1, r, nPiece, H)
  const scores = g.expand(g.repeat(constant(chunk, [nKv], 0), nKv, H))
  for (let at = 0; at < nTiles; at += nPiece) {
    const n = Math.min(nPiece, nTiles - at)
    const tiles = kT.tiles(g, n * TILE, at * TILE)
    const some = g.getRows(tiles, g.view(index, [r, n, G, 1], [index.nb[1], index.nb[2], index.nb[3]])) // [TILE, r, n, G]
    const piece = g.outProd(some, g.view(factors, [1, r, n, H], [factors.nb[1], factors.nb[2], factors.nb[3]])) // [TILE, 1, n, H]
    const place = g.view(scores, [n * TILE, H, 1, 1], [scores.nb[1], scores.nb[2], scores.nb[3]], at * TILE * scores.nb[0])
    g.expand(g.addInplace(place, g.reshape(piece, n * TILE, H)))
  }
  return scores
}

/** Components gathered at a time: what stays in a processor's cache between being gathered and being used. */
const PIECE_BYTES = 2 ** 20
const MOST_PIECES = 64

/** The rows of the newest `n` positions that the query sees: i32[n, 1], or per layer i32[n, G] once rows were dropped. */
function newestRows(chunk: Chunk, { il, visible }: AttentionLayer, n: number, isWhole: boolean): Tensor {
  const nMaps = isWhole ? 1 : chunk.layer(il).v.layout.nHead
  const first = visible === 'strict' ? 1 : 0
  return chunk.once(`newest:${n}:${first}:${isWhole ? '' : il}`, () =>
    chunk.input(I32, [n, nMaps], (data, { rows, layers }) => {
      for (const [head, map] of (isWhole ? [rows] : layers[il]!.rows).entries()) {
        for (let i = 0; i < n; i++) {
          const rank = map.nRows - i - first
          data[head * n + i] = rank >= 0 && rank < map.nRows ? map.row(rank) : map.nextRow(0)
        }
      }
    }),
  )
}

function constant(chunk: Chunk, ne: readonly number[], value: number): Tensor {
  return chunk.once(`constant:${ne.join()}:${value}`, () => chunk.input(F32, ne, (data) => data.fill(value)))
}
