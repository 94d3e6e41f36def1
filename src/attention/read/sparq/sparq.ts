/**
 * SparQ: the largest components of a query say most about its scores, and the largest scores most about its output. So a
 * decoded token reads r components of every key to guess the scores, then the k best keys and their values in full; what
 * the guess gives to the others goes to the mean of all values. Nothing is dropped.
 *
 * Ribar et al., "SparQ Attention: Bandwidth-Efficient LLM Inference" (arXiv 2312.04985), section 4, algorithm 1, for query
 * heads that share a KV head too: they choose components by the sum of their |q|, and keys by the sum of their guessed
 * probabilities (the published GQA code; that of the experiments sums raw scores).
 *
 * Where we differ:
 * - of the k keys, the newest ones (`local`, k/4) are always among them, as in the experiments; these count the current key
 *   on top of k, here it is one of the newest.
 * - where the method would read no less than everything, everything is read: with k of T keys and r of d components as soon
 *   as k + T·r/2d ≥ T (T in whole tiles, kv/layout.ts); and up to `from` keys, where choosing takes longer than reading.
 * - `store=once` reads whole keys for the guess, with the components not chosen at 0: a processor fetches 64 bytes at
 *   least, half a key of 64 components, so it saves values only. So do keep methods that turn keys to other places with
 *   every step (streaming), for whose keys no second copy can be kept.
 * - where rows were dropped, the mean is that of the rows left.
 *
 * Prompts are read densely. Cost per token, layer and KV head: T·r + 2·k·d + 4·d elements read and written, against 2·T·d, and
 * d written for the second copy of keys; 2·g·(T·r + 2·k·d) FLOPs. Memory: 3/2 of dense when keys are stored twice.
 */
import { z } from 'zod'
import type { ModelShape } from '../core/shape.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32, I32 } from '../ggml/types.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { RowMap } from '../kv/rows.ts'
import type { Store } from '../kv/store.ts'
import { TILE } from '../kv/layout.ts'
import { keysDense, type Kept, type Projected, type Read, type ReadMethod, type Step, type StepPart } from './method.ts'
import { readDensely } from './dense.ts'
import { groupHeads, scoresOf, storeWriter, ungroupHeads } from './pieces.ts'
import { ValueMean } from './value-mean.ts'

const tokens = z
  .number()
  .int()
  .max(2 ** 24)

const options = z.object({
  r: z.number().int().min(1).max(1024).default(32).describe('components of every key that are read (at most the head dimension)'),
  k: tokens.min(1).default(128).describe('keys that are read in full, with their values (tokens)'),
  local: z.number().min(0).max(1).default(0.25).describe('share of k that always goes to the newest keys'),
  store: z
    .enum(['twice', 'once'])
    .default('twice')
    .describe('keys stored by token and by component, or by token only: a third less memory, but whole keys are read'),
  from: tokens.min(0).default(2048).describe('up to so many keys all are read: to choose among few takes longer (tokens)'),
  realloc: z.boolean().default(true).describe('what the guess gives to keys not read goes to the mean of all values'),
})
type Options = z.output<typeof options>

/** Components gathered at a time: what stays in a processor's cache between being gathered and being used. */
const PIECE_BYTES = 2 ** 20
const MOST_PIECES = 64
const NODES = 64 + 8 * MOST_PIECES

export const sparq: ReadMethod<typeof options> = {
  name: 'sparq',
  axis: 'read',
  summary: 'A decoded token guesses its scores from some components of every key, and reads the best keys in full.',
  source: 'SparQ, arXiv 2312.04985',
  cost: 'G·(T·r + 2·k·d)·e bytes per layer and token; prompts as dense; half as much memory again for the second copy of keys',
  options,
  exactFor: (nTokens) => ({ r: 8, k: nTokens, from: 0 }),
  tightFor: (nTokens) => ({ r: 8, k: Math.floor(nTokens / 6), from: 0 }),
  refuses: ({ headDim }, { r }) => (r > headDim ? `r is ${r}, but its keys have ${headDim} components` : null),
  bind: sparqRead,
}

function sparqRead({ r, k, local, store, from, realloc }: Options, shape: ModelShape): Read {
  const { nHeadKv: nHead, headDim: width } = shape
  const means = realloc ? new ValueMean() : null
  /** Components of each key that the guess reads. */
  const nGuessed = (columns: Store | undefined) => (columns ? r : width)
  const isShort = ({ rows }: SequenceCache) => rows.nRows + 1 <= from
  const readsAll = ({ cache, nRead }: Pick<StepPart, 'cache' | 'nRead'>, columns: Store | undefined) =>
    isShort(cache) || nRead <= k + (nRead * nGuessed(columns)) / (2 * width)
  const columnsOf = ({ cache }: Pick<StepPart, 'cache'>, il: number) => cache.layers[il]!.stores['columns']

  /** What is kept beside keys and values: keys by component, and the mean of values, which is returned. */
  const storing = (step: Step, part: StepPart): ((kept: Kept, projected: Projected) => Tensor | null) => {
    const write = storeWriter(step, part, !part.cache.isWhole)
    const mean = means?.start(step, part)
    return (kept, projected) => {
      const { il } = kept.layer
      const columns = columnsOf(part, il)
      if (columns && part.cache.layers[il]!.isOwner) write(part.cache.layers[il]!, columns, projected.rotated.k)
      return mean?.(kept, projected) ?? null
    }
  }

  return {
    readsTiles: (nRows) => nRows > from,
    readsPrompts: false,
    valueOrder: () => 'rows',
    stores(_, __, { type, positions }) {
      const columns = { width, nHead, type, order: 'columns' } as const
      return {
        ...(store === 'twice' && positions === 'absolute' && { columns }),
        ...(means && { mean: means.layout(shape) }),
      }
    },
    graphKey: (cache) => `${cache.isWhole}:${means?.way(cache)}:${isShort(cache)}`,
    nNodes: () => NODES,
    stored: storing,
    start(step, part, needsProbabilities) {
      const store = storing(step, part)
      const choose = chooser(step, part, { r, k, nLocal: Math.floor(k * local) })
      return (kept, projected) => {
        const mean = store(kept, projected)
        const columns = columnsOf(part, kept.layer.il)
        if (readsAll(part, columns)) return readDensely(step, kept, needsProbabilities)
        return readChosen(step, kept, { ...choose(kept, columns), mean })
      }
    },
    /** A key with its value counts 1, a component of a key 1/2d: so 2·d times this is the traffic of keys and values. */
    keysRead(il, { cache, nTokens, nRead }) {
      const columns = columnsOf({ cache }, il)
      const nRows = cache.rows.nRows + nTokens
      if (readsAll({ cache, nRead }, columns)) return keysDense(cache.rows.nRows, nTokens)
      return Math.round(Math.min(k, nRows) + (nRows * nGuessed(columns)) / (2 * width))
    },
  }
}

interface Chosen {
  /** f32[d, g, G] */
  readonly q: Tensor
  /** i2: rows i32[k, G]. */
  readonly rows: Tensor
  /** ŝ: f32[nRead, g, G]. */
  readonly guess: Tensor
  /** f32[nRead]: 0 or -∞. */
  readonly mask: Tensor
}

/** Steps 2 to 4: which keys a token reads. Sums over heads of a group are products with ones. */
function chooser(
  step: Step,
  part: StepPart,
  { r, k, nLocal }: { readonly r: number; readonly k: number; readonly nLocal: number },
) {
  const { g, shape } = step
  const { nRead } = part
  const { headDim: d, nHead: H, nHeadKv: G } = shape
  const group = H / G
  const ones = g.input(F32, [1, group, G], (data) => data.fill(1))
  const unit = g.input(F32, [d, d], (data) => {
    data.fill(0)
    for (let i = 0; i < d; i++) data[i * (d + 1)] = 1
  })
  const newest = newestRows(g, part, nLocal)
  /** More than any sum of probabilities. */
  const most = nLocal === 0 ? null : g.input(F32, [1, nLocal, G], (data) => data.fill(2 * group))

  return (kept: Kept, columns: Store | undefined): Chosen => {
    const q = groupHeads(step, kept.q)
    const size = g.abs(q)
    // 2: i1, the r largest components of Σ_j |q_j|, and what the queries have there.
    const i1 = g.topK(g.reshape(g.outProd(size, ones), d, G), r) // i32[r, G]
    const each = g.repeat(g.reshape(i1, r, 1, G), r, group, G)
    const some = g.reshape(g.getRows(g.reshape(q, 1, d, group, G), each), r, group, G)
    // 3: ŝ_j = softmax(q_j[i1] · K[:, i1] / τ_j), τ_j = √(d · ‖q_j[i1]‖₁ / ‖q_j‖₁). The least number is for queries of zeros.
    const norm = (x: Tensor) => g.scaleBias(g.sumRows(x), 1, 1e-30)
    const temperature = g.scale(g.sqrt(g.div(norm(size), norm(g.abs(some)))), 1 / Math.sqrt(d)) // 1 / τ f32[1, g, G]
    const scaled = g.mul(some, temperature) // f32[r, g, G]
    const mask = g.reshape(g.cast(kept.mask, F32), nRead)
    const scores = columns
      ? guessByColumns(step, columns, { i1, q: scaled, mask })
      : g.add(scoresOf(step, kept.k, g.outProd(rowsOf(g, unit, i1), g.permute(scaled, 1, 0, 2, 3))), mask)
    const guess = g.softMaxExt(g.reshape(scores, nRead, group, G), null, 1)
    // 4: i2, the k largest of Σ_j ŝ_j, the newest before all others.
    const sum = g.outProd(guess, ones) // f32[nRead, 1, G]
    const boosted = most ? g.setRows(g.reshape(sum, 1, nRead, G), most, newest(kept.layer.il)) : sum
    return { q, guess, mask, rows: g.topK(g.reshape(boosted, nRead, G), Math.min(k, nRead)) }
  }

  function rowsOf(g: Graph, matrix: Tensor, index: Tensor): Tensor {
    return g.reshape(g.getRows(matrix, g.reshape(index, r * G)), d, r, G)
  }
}

interface Guess {
  /** i32[r, G] */
  readonly i1: Tensor
  /** f32[r, g, G] */
  readonly q: Tensor
  /** f32[nRead] */
  readonly mask: Tensor
}

/** Σ_c q[c] · K[:, c] + mask over tiles of columns, in pieces → f32[nRead, H]. */
function guessByColumns({ g, shape }: Step, columns: Store, { i1, q, mask }: Guess): Tensor {
  const { headDim: d, nHead: H, nHeadKv: G } = shape
  const r = i1.ne[0]
  const nRead = mask.ne[0]
  const nTiles = nRead / TILE
  const perTile = Float32Array.BYTES_PER_ELEMENT * TILE * r * G
  const nPiece = Math.min(nTiles, Math.max(1, Math.floor(PIECE_BYTES / perTile), Math.ceil(nTiles / MOST_PIECES)))
  const index = g.repeat(g.reshape(i1, r, 1, G), r, nPiece, G)
  const factors = g.repeat(g.reshape(q, 1, r, 1, H), 1, r, nPiece, H)
  const scores = g.expand(g.repeat(mask, nRead, H))
  for (let at = 0; at < nTiles; at += nPiece) {
    const n = Math.min(nPiece, nTiles - at)
    const { nb } = columns.tensor
    const tiles = g.view(columns.tensor, [TILE, d, n, G], [nb[1], nb[2], nb[3]], at * nb[2])
    const some = g.getRows(tiles, g.view(index, [r, n, G, 1], [index.nb[1], index.nb[2], index.nb[3]])) // [TILE, r, n, G]
    const piece = g.outProd(some, g.view(factors, [1, r, n, H], [factors.nb[1], factors.nb[2], factors.nb[3]])) // [TILE, 1, n, H]
    const place = g.view(scores, [n * TILE, H, 1, 1], [scores.nb[1], scores.nb[2], scores.nb[3]], at * TILE * scores.nb[0])
    g.expand(g.addInplace(place, g.reshape(piece, n * TILE, H)))
  }
  return scores
}

/** Steps 5 to 7: attention over the chosen keys, and the mean of values for the rest. */
function readChosen(step: Step, kept: Kept, { q, rows, guess, mask, mean }: Chosen & { readonly mean: Tensor | null }) {
  const { g, shape } = step
  const { headDim: d, nHead: H, nHeadKv: G } = shape
  const [k, group, nRead] = [rows.ne[0], H / G, kept.nRead]
  // 5: s_j = softmax(q_j · K[i2] / √d), y_j = s_j · V[i2]. Rows not in use are masked, where fewer than k are.
  const open = g.reshape(g.getRows(g.reshape(mask, 1, nRead), g.reshape(rows, k * G)), k, 1, G)
  const scores = g.add(scoresOf(step, g.getRows(kept.k, rows), q), g.repeat(open, k, group, G))
  const p = g.softMaxExt(scores, null, 1 / Math.sqrt(d)) // f32[k, g, G]
  const y = g.outProd(g.getRows(kept.v.rows(g, nRead), rows), g.permute(p, 1, 0, 2, 3)) // f32[d, g, G]
  if (mean === null) return { o: ungroupHeads(step, y, 1), p: { values: p, index: rows } }
  // 6: α_j = Σ ŝ_j[i2], of the guess as it was; 7: o_j = α_j · y_j + (1 - α_j) · v̄.
  const each = g.repeat(g.reshape(rows, k, 1, G), k, group, G)
  const share = g.sumRows(g.reshape(g.getRows(g.reshape(guess, 1, nRead, group, G), each), k, group, G)) // f32[1, g, G]
  const o = g.add(g.mul(g.sub(y, mean), share), mean)
  return { o: ungroupHeads(step, o, 1), p: { values: g.mul(p, share), index: rows } }
}

/** The rows of the newest `n` positions, the current one first: i32[n, 1], or per layer i32[n, G] once rows were dropped. */
function newestRows(g: Graph, { cache, isStrict }: StepPart, n: number): (il: number) => Tensor {
  const input = (maps: readonly RowMap[]) =>
    g.input(I32, [n, maps.length], (data) => {
      for (const [head, map] of maps.entries()) {
        for (let i = 0; i < n; i++) {
          const rank = map.nRows - i - (isStrict ? 1 : 0)
          data[head * n + i] = rank >= 0 && rank < map.nRows ? map.row(rank) : map.nextRow(0)
        }
      }
    })
  const all = n === 0 || !cache.isWhole ? null : input([cache.rows])
  return (il) => all ?? input(cache.layers[il]!.rows)
}
