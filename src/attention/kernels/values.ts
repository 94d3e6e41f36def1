/** Σ p · v over rows of a cache. Shapes: d = dV, H = nHead, G = nHeadKv, g = H / G, n = tokens of a chunk. */
import type { Graph } from '../../ggml/graph.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { F32 } from '../../ggml/types.ts'
import { roundUp, TILE } from '../../kv/layout.ts'
import type { Store } from '../../kv/store.ts'
import type { Heads } from './heads.ts'
import { product } from './scores.ts'

/** Rows are widened to f32 in at most this many pieces, so that a long cache needs no copy of its size. */
const MOST_PIECES = 8
const LEAST_PIECE = 4096

/** Σ_row p · v: probabilities f32[m, n · g, G] over m rows of `v` from the tile at `from` on → f32[d, n · g, G]. */
export function applyValues(g: Graph, heads: Heads, p: Tensor, { v, from }: { v: Store; from: number }): Tensor {
  const [m, , G] = p.ne
  if (v.layout.order === 'transposed') return applyTransposed(g, heads, p, { v, from })
  const rows = v.rows(g, m, from)
  const size = Math.max(LEAST_PIECE, roundUp(m / MOST_PIECES, TILE))
  let sum: Tensor | null = null
  for (let at = 0; at < m; at += size) {
    const n = Math.min(size, m - at)
    const some = g.view(rows, [rows.ne[0], n, G, 1], [rows.nb[1], rows.nb[2], rows.nb[3]], at * rows.nb[1])
    const weights = g.view(p, [n, p.ne[1], G, 1], [p.nb[1], p.nb[2], p.nb[3]], at * p.nb[0])
    const piece = g.outProd(g.cast(some, F32), g.permute(weights, 1, 0, 2, 3))
    sum = sum ? g.add(sum, piece) : piece
  }
  return sum!
}

function applyTransposed(g: Graph, heads: Heads, p: Tensor, { v, from }: { v: Store; from: number }): Tensor {
  const m = p.ne[0]
  const nTiles = Math.floor(m / TILE)
  const rest = m - nTiles * TILE
  const part = (at: number, n: number) => g.view(p, [n, p.ne[1], p.ne[2], 1], [p.nb[1], p.nb[2], p.nb[3]], at * p.nb[0])
  const ofRest = () => applyTile(g, heads, part(nTiles * TILE, rest), v.startOfTile(g, from / TILE + nTiles, rest))
  if (nTiles === 0) return ofRest()
  const ofTiles = applyTiles(g, heads, rest === 0 ? p : part(0, nTiles * TILE), v.tiles(g, nTiles * TILE, from))
  return rest === 0 ? ofTiles : g.add(ofTiles, ofRest())
}

/** Probabilities f32[m, n · g, G] over transposed tiles `[TILE, d, m / TILE, G]` → f32[d, n · g, G]. */
function applyTiles(g: Graph, heads: Heads, p: Tensor, tiles: Tensor): Tensor {
  const [m, rows, G] = p.ne
  if (m === TILE) return applyTile(g, heads, p, tiles)
  if (rows * G === heads.nHead) {
    // A single query: its heads one by one, so that p is read where it lies; the threads have just written it.
    const single = g.view(p, [TILE, 1, m / TILE, rows * G], [p.nb[1], TILE * p.nb[0], p.nb[1]])
    const perTile = g.reshape(g.mulMat(tiles, single), tiles.ne[1], m / TILE, rows * G)
    return g.reshape(g.sumRows(g.cont(g.permute(perTile, 1, 0, 2, 3))), tiles.ne[1], rows, G)
  }
  const split = g.view(p, [TILE, m / TILE, rows, G], [TILE * p.nb[0], p.nb[1], p.nb[2]])
  const perTile = product(g, heads, tiles, g.permute(split, 0, 2, 1, 3)) // f32[d, rows, m / TILE, G]
  return g.reshape(g.sumRows(g.cont(g.permute(perTile, 1, 2, 0, 3))), tiles.ne[1], rows, G)
}

/** The same over one tile, or some tokens of one: `[m, d, 1, G]`. */
function applyTile(g: Graph, heads: Heads, p: Tensor, tile: Tensor): Tensor {
  const [m, rows, G] = p.ne
  const one = g.view(p, [m, rows, 1, G], [p.nb[1], p.nb[2], p.nb[2]])
  return g.reshape(product(g, heads, tile, one), tile.ne[1], rows, G)
}
