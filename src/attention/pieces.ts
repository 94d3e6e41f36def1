/** The pieces methods are made of. Shapes: d = headDim, H = nHead, G = nHeadKv, g = H / G, n = tokens of a part. */
import { F16, F32, I32 } from '../ggml/types.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { ModelShape } from '../core/shape.ts'
import { type CacheLayer, type SequenceCache, storeOf } from '../kv/cache.ts'
import { roundUp, TILE } from '../kv/layout.ts'
import type { RowMap } from '../kv/rows.ts'
import type { Store } from '../kv/store.ts'
import { linear, type Linear } from '../nn/linear.ts'
import type { AttentionLayer, KeepLayer, NewRows, Step, StepPart } from './method.ts'

/** A step as if the model had `nHeadKv` heads of keys. */
export function withHeadsOf(step: Step, nHeadKv: number): Step {
  const { nHead, nHeadKv: all } = step.shape
  return { ...step, shape: { ...step.shape, nHead: (nHead / all) * nHeadKv, nHeadKv } }
}

/** x f32[nEmbd, n] → f32[d, heads, n]. */
export function project({ g, shape }: Step, weights: Linear, x: Tensor): Tensor {
  const y = linear(g, weights, x)
  return g.reshape(y, shape.headDim, y.ne[0] / shape.headDim, y.ne[1])
}

/** Rotates f32[d, heads, n] to `positions` i32[n]. */
export function rotate({ g }: Step, layer: Pick<AttentionLayer, 'rope' | 'ropeFactors'>, x: Tensor, positions: Tensor): Tensor {
  return g.ropeExt(x, positions, layer.ropeFactors, layer.rope)
}

/** The columns of one part: [d, heads, nTokens] → [d, heads, n]. */
export function slice({ g }: Step, part: StepPart, x: Tensor): Tensor {
  if (part.nTokens === x.ne[2]) return x
  return g.view(x, [x.ne[0], x.ne[1], part.nTokens, 1], [x.nb[1], x.nb[2], x.nb[3]], part.first * x.nb[2])
}

/** Tensors one behind the other along `dim`, joined in pairs: no element is copied more than a few times. */
export function concatAll(g: Step['g'], parts: readonly Tensor[], dim: 0 | 1 | 2 | 3): Tensor {
  if (parts.length === 1) return parts[0]!
  const half = parts.length >> 1
  return g.concat(concatAll(g, parts.slice(0, half), dim), concatAll(g, parts.slice(half), dim), dim)
}

/** Of one part: i32[n]. */
export function partPositions({ g, positions }: Step, { first, nTokens }: StepPart): Tensor {
  if (nTokens === positions.ne[0]) return positions
  return g.view(positions, [nTokens, 1, 1, 1], [positions.nb[1], positions.nb[2], positions.nb[3]], first * positions.nb[0])
}

/** The parts' outputs f32[d · H, n] side by side: f32[d · H, nTokens]. */
export function join({ g }: Step, parts: readonly Tensor[]): Tensor {
  return parts.reduce((all, part) => g.concat(all, part, 1))
}

/** `perHead`: every layer and head has rows of its own; otherwise all maps are alike and the first one serves. */
export function writer(step: Step, part: StepPart, perHead: boolean): KeepLayer['write'] {
  const write = storeWriter(step, part, perHead)
  return ({ il }, rows: NewRows) => {
    const layer = part.cache.layers[il]!
    for (const [name, x] of Object.entries(rows)) write(layer, storeOf(layer, name), x)
  }
}

/** Writes f32[width, G, n] to the rows of a part's new tokens in a store; one input of row numbers serves all that agree. */
export function storeWriter({ g }: Step, { cache, nTokens }: StepPart, perHead: boolean) {
  const inputs = new Map<string, Tensor>()
  const slots = (layer: CacheLayer, store: Store): Tensor => {
    const maps: readonly RowMap[] = perHead ? layer.rows : [cache.rows]
    const { order, width } = store.layout
    const key = `${perHead ? cache.layers.indexOf(layer) : ''}:${order}:${width}`
    const known = inputs.get(key)
    if (known) return known
    const made = g.input(I32, [nTokens * store.slotsPerToken, maps.length], (data) => store.slots(data, maps))
    inputs.set(key, made)
    return made
  }
  return (layer: CacheLayer, store: Store, x: Tensor): void => store.write(g, x, slots(layer, store))
}

const F16_MINUS_INFINITY = 0xfc00

/**
 * f16[nRead, n]: 0 where a query may see the key of a row, -∞ where the key lies in its future or the row is unused. The
 * rows in use must lie together from 0 on; the new tokens take the rows behind them.
 */
export function causalMask({ g }: Step, { cache, nTokens, nRead, isStrict }: StepPart): Tensor {
  return g.input(F16, [nRead, nTokens], (mask) => {
    for (let query = 0; query < nTokens; query++) {
      const nBefore = cache.rows.nRows + query
      const visible = isStrict && nBefore > 0 ? nBefore : nBefore + 1
      mask.fill(0, query * nRead, query * nRead + visible)
      mask.fill(F16_MINUS_INFINITY, query * nRead + visible, (query + 1) * nRead)
    }
  })
}

/** Keys that stand at their own positions. `perHead` as in {@link writer}; the rows in use must lie together from 0 on. */
export function inPlace(step: Step, part: StepPart, perHead: boolean): Pick<KeepLayer, 'write' | 'kept'> {
  const { cache, nRead } = part
  const mask = causalMask(step, part)
  return {
    write: writer(step, part, perHead),
    kept(layer, { rotated }) {
      const { k, v } = cache.layers[layer.il]!
      return { layer, q: rotated.q, k: k.rows(step.g, nRead), v, mask, nRead }
    },
  }
}

/** f32[d, H, n] → f32[d, n · g, G]: the query heads of a KV head as rows beside each other, tokens first. */
export function groupHeads({ g, shape }: Step, q: Tensor): Tensor {
  const { nHead: H, nHeadKv: G } = shape
  const [d, , n] = q.ne
  return g.reshape(n === 1 ? q : g.cont(g.permute(q, 0, 2, 1, 3)), d, (n * H) / G, G)
}

/** f32[d, n · g, G] → f32[d · H, n]. */
export function ungroupHeads({ g, shape }: Step, o: Tensor, n: number): Tensor {
  const { headDim: d, nHead: H } = shape
  const heads = g.reshape(o, d, n, H)
  return g.reshape(n === 1 ? heads : g.cont(g.permute(heads, 0, 2, 1, 3)), d * H, n)
}

/** Probabilities of a part that may be in memory at once. */
const MOST_BYTES = 256 * 2 ** 20
const MOST_QUERIES = 512

/** Tokens that a part may bring where the probabilities of a whole layer outlive it. */
export function queriesAtOnce({ nHead }: ModelShape, { rows }: SequenceCache): number {
  const perQuery = Float32Array.BYTES_PER_ELEMENT * nHead * (rows.nRows + MOST_QUERIES)
  return Math.min(MOST_QUERIES, Math.max(1, Math.floor(MOST_BYTES / perQuery)))
}

/** Masks of a single query with a row for each of some heads; every layer uses them. */
const maskRows = new WeakMap<Tensor, Tensor>()
/** More rows than most processors have cores to share them. */
const MOST_ROWS = 16

/** softmax of scores f32[m, n · g, G] under a mask f16[m, n]. */
export function softmax({ g, shape }: Step, scores: Tensor, mask: Tensor, n: number): Tensor {
  const [m, rows, G] = scores.ne
  const scale = 1 / Math.sqrt(shape.headDim)
  // ggml's threads share the rows of dimension 1: those of a single query are its heads.
  const nRows = n === 1 ? largestDivisor(shape.nHead, MOST_ROWS) : n
  let ours = mask
  if (nRows > n) {
    const known = maskRows.get(mask)
    ours = known && known.ne[1] >= nRows ? known : g.repeat(mask, m, nRows)
    maskRows.set(mask, ours)
  }
  return g.reshape(g.softMaxExt(g.reshape(scores, m, nRows, (n * shape.nHead) / nRows), ours, scale), m, rows, G)
}

function largestDivisor(n: number, most: number): number {
  let divisor = Math.min(n, most)
  while (n % divisor !== 0) divisor--
  return divisor
}

/** Rows are widened to f32 in at most this many pieces, so that a long cache needs no copy of its size. */
const MOST_PIECES = 8
const LEAST_PIECE = 4096

/** Σ_row p · v: probabilities f32[m, n · g, G] over the first m rows of `v`, in the order they are stored → f32[d, n · g, G]. */
export function weighStored(step: Step, p: Tensor, v: Store): Tensor {
  const { g } = step
  const [m, , G] = p.ne
  if (v.layout.order === 'columns') return weighColumns(step, p, v)
  const rows = v.rows(g, m)
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

/** Σ_row p · v: probabilities f32[m, n · g, G] over values in columns → f32[d, n · g, G]. */
function weighColumns(step: Step, p: Tensor, v: Store): Tensor {
  const { g } = step
  const m = p.ne[0]
  const nTiles = Math.floor(m / TILE)
  const rest = m - nTiles * TILE
  const from = (at: number, n: number) => g.view(p, [n, p.ne[1], p.ne[2], 1], [p.nb[1], p.nb[2], p.nb[3]], at * p.nb[0])
  const ofRest = () => weighOne(step, from(nTiles * TILE, rest), v.startOfTile(g, nTiles, rest))
  if (nTiles === 0) return ofRest()
  const ofTiles = weigh(step, rest === 0 ? p : from(0, nTiles * TILE), v.columns(g, nTiles * TILE))
  return rest === 0 ? ofTiles : g.add(ofTiles, ofRest())
}

/** Σ_row p · v: probabilities f32[m, n · g, G] over tiles of columns `[TILE, d, m / TILE, G]` → f32[d, n · g, G]. */
export function weigh(step: Step, p: Tensor, columns: Tensor): Tensor {
  const { g, shape } = step
  const [m, rows, G] = p.ne
  if (m === TILE) return weighOne(step, p, columns)
  if (rows * G === shape.nHead) {
    // A single query: its heads one by one, so that p is read where it lies; the threads have just written it.
    const single = g.view(p, [TILE, 1, m / TILE, rows * G], [p.nb[1], TILE * p.nb[0], p.nb[1]])
    const perTile = g.reshape(g.mulMat(columns, single), columns.ne[1], m / TILE, rows * G)
    return g.reshape(g.sumRows(g.cont(g.permute(perTile, 1, 0, 2, 3))), columns.ne[1], rows, G)
  }
  const tiles = g.view(p, [TILE, m / TILE, rows, G], [TILE * p.nb[0], p.nb[1], p.nb[2]])
  const perTile = product(step, columns, g.permute(tiles, 0, 2, 1, 3)) // f32[d, rows, m / TILE, G]
  return g.reshape(g.sumRows(g.cont(g.permute(perTile, 1, 2, 0, 3))), columns.ne[1], rows, G)
}

/** The same over one tile, or some tokens of one: `[m, d, 1, G]`. */
function weighOne(step: Step, p: Tensor, columns: Tensor): Tensor {
  const [m, rows, G] = p.ne
  const one = step.g.view(p, [m, rows, 1, G], [p.nb[1], p.nb[2], p.nb[2]])
  return step.g.reshape(product(step, columns, one), columns.ne[1], rows, G)
}

/**
 * a[n, m, t, G] · b[n, rows, t, G] → f32[m, rows, t, G]. The rows of a single query go to dimension 2: products with one row
 * take ggml's plain kernel, where threads meet twice per product; with more they would meet twice per head and tile.
 */
export function product({ g, shape }: Step, a: Tensor, b: Tensor): Tensor {
  const [n, rows, t, G] = b.ne
  if (rows !== shape.nHead / shape.nHeadKv) return g.mulMat(a, b)
  const single = t === 1 ? g.view(b, [n, 1, rows, G], [b.nb[1], b.nb[1], b.nb[3]]) : g.reshape(g.cont(b), n, 1, rows * t, G)
  return g.reshape(g.mulMat(a, single), a.ne[1], rows, t, G)
}

/** Keys per product of a single query. */
const KEYS = 16

/**
 * Scores of queries f32[d, n · g, G] and keys `[d, m, G]`: f32[m, n · g, G].
 *
 * ggml hands threads 16 rows of a product at a time. With keys as rows, threads take turns every 64 bytes of the scores, and
 * lines of memory travel between their caches all the time: two threads are then no faster than one. A single query is
 * therefore multiplied with keys in groups of 16, each group a matrix of its own, of which threads take 16 at a time; the
 * query stands for all of its repetitions.
 */
export function scoresOf(step: Step, k: Tensor, q: Tensor): Tensor {
  const { g, shape } = step
  const [d, m, G] = k.ne
  const rows = q.ne[1]
  const H = rows * G
  if (H !== shape.nHead || m % KEYS !== 0 || k.type !== F16) {
    const keys = g.view(k, [d, m, 1, G], [k.nb[1], k.nb[2], k.nb[2]])
    return g.reshape(product(step, keys, g.reshape(q, d, rows, 1, G)), m, rows, G)
  }
  if (d < LINE && LINE % d === 0 && k.nb[1] === d * k.nb[0]) return shortScores(step, k, q)
  const groups = g.view(k, [d, KEYS, m / KEYS, G], [k.nb[1], KEYS * k.nb[1], k.nb[2]])
  const queries = g.stretch(g.reshape(g.cast(q, F16), d, 1, 1, H), m / KEYS)
  return g.reshape(g.mulMat(groups, queries), m, rows, G)
}

/** Elements that ggml's product of f16 rows takes at once; it takes the rest of a row one by one, many times as slowly. */
const LINE = 64

/**
 * The same for a single query and keys of 2 … 32 elements: as many keys as fill a line are one row, which is multiplied with the
 * query in each of their places, and zeros beside it.
 */
function shortScores({ g }: Step, k: Tensor, q: Tensor): Tensor {
  const [d, m, G] = k.ne
  const rows = q.ne[1]
  const n = LINE / d
  const repeated = g.repeat(g.reshape(q, d, 1, 1, rows * G), d, n, n, rows * G)
  const placed = g.mul(g.reshape(repeated, LINE, n, rows, G), places(g, d))
  const lines = g.view(k, [LINE, m / n, 1, G], [LINE * k.nb[0], k.nb[2], k.nb[2]])
  return g.reshape(g.mulMat(g.cast(placed, F16), g.stretch(lines, rows)), m, rows, G)
}

const placesOf = new WeakMap<Step['g'], Map<number, Tensor>>()

/** f32[LINE, LINE / d]: 1 where element i of a line is of key j, else 0. */
function places(g: Step['g'], d: number): Tensor {
  const known = placesOf.get(g) ?? new Map<number, Tensor>()
  placesOf.set(g, known)
  const ones = (data: Float32Array) =>
    data.forEach((_, i) => (data[i] = Math.floor((i % LINE) / d) === Math.floor(i / LINE) ? 1 : 0))
  const made = known.get(d) ?? g.input(F32, [LINE, LINE / d], ones)
  known.set(d, made)
  return made
}
