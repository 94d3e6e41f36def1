/**
 * Dense attention, the empty setting: every query reads every key before it. O(T) per token, exact.
 *
 * K is stored as rows and V as columns (kv/layout.ts), which suits the two ways of computing it on a CPU:
 * - few queries: K·q, softmax, V·p as products over the cache as it lies. Query heads of one KV head go through K and V
 *   together, so both are read once per step: 2·G·T·d·e bytes and 4·H·T·d FLOPs per layer and token.
 * - many queries (a prompt): `flash_attn_ext`, which never holds all scores. It wants V as rows, so the columns are
 *   transposed once per layer and step; for hundreds of queries that is about a hundredth of the work.
 */
import { F16, I32 } from '../ggml/types.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Graph } from '../ggml/graph.ts'
import { TILE } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import { type AttentionMethod, keysDense, type Step, type StepPart } from './method.ts'
import { causalMask, join, project, rotate, slice } from './pieces.ts'
import { linear } from '../nn/linear.ts'

/** From this many queries on, flash attention computes in tiles (64 queries each) and is the faster way. */
const FLASH_QUERIES = 64

interface Inputs {
  /** f16[nRead, n] */
  readonly mask: Tensor
  /** Where the new rows go: i32[n · slotsPerToken]. */
  readonly kSlots: Tensor
  readonly vSlots: Tensor
}

export const dense: AttentionMethod = {
  name: 'dense',

  layout: ({ nLayer, nHeadKv, headDim }, types) => ({
    layers: Array.from({ length: nLayer }, () => ({
      k: { width: headDim, nHead: nHeadKv, type: types.k, order: 'rows' as const },
      v: { width: headDim, nHead: nHeadKv, type: types.v, order: 'columns' as const },
    })),
  }),

  start(step) {
    const inputs = step.parts.map((part) => inputsOf(step, part))
    return (layer, x) => {
      const q = rotate(step, layer, project(step, layer.q, x))
      const k = rotate(step, layer, project(step, layer.k, x))
      const v = project(step, layer.v, x)
      const outputs = step.parts.map((part, i) => {
        const stored = part.cache.layers[layer.il]!
        stored.k.write(step.g, slice(step, part, k), inputs[i]!.kSlots)
        stored.v.write(step.g, slice(step, part, v), inputs[i]!.vSlots)
        const read = part.nTokens < FLASH_QUERIES ? readByProducts : readByFlash
        return read(step, part, { il: layer.il, q: slice(step, part, q), mask: inputs[i]!.mask })
      })
      return linear(step.g, layer.output, join(step, outputs))
    }
  },

  keysRead: ({ cache, nTokens }) => keysDense(cache.nTokens, nTokens),
}

function inputsOf({ g }: Step, part: StepPart): Inputs {
  const { cache, nTokens, nRead } = part
  const { k, v, rows } = cache.layers[0]!
  const slots = (store: typeof k) => g.input(I32, [nTokens * store.slotsPerToken], (data) => store.slots(data, rows.nRows))
  return { mask: g.input(F16, [nRead, nTokens], (data) => causalMask(data, part)), kSlots: slots(k), vSlots: slots(v) }
}

interface Read {
  readonly il: number
  /** f32[d, H, n], rotated. */
  readonly q: Tensor
  readonly mask: Tensor
}

/** → f32[d · H, n]. In here the heads of a group are rows beside each other: [·, n · g, G]. */
function readByProducts({ g, shape }: Step, { cache, nTokens: n, nRead }: StepPart, { il, q, mask }: Read): Tensor {
  const { k, v } = cache.layers[il]!
  const { headDim: d, nHead: H, nHeadKv: G } = shape
  const rows = n * (H / G)
  const queries = n === 1 ? q : g.cont(g.permute(q, 0, 2, 1, 3))
  const scores = product(g, perHead(g, k.rows(g, nRead)), g.reshape(queries, d, rows, 1, G), n === 1)
  const p = g.softMaxExt(g.reshape(scores, nRead, n, H), mask, 1 / Math.sqrt(d))
  const heads = g.reshape(weigh(g, g.reshape(p, nRead, rows, G), v, n === 1), d, n, H)
  return g.reshape(n === 1 ? heads : g.cont(g.permute(heads, 0, 2, 1, 3)), d * H, n)
}

/** [d, nRead, G] → [d, nRead, 1, G]. */
function perHead(g: Graph, k: Tensor): Tensor {
  return g.view(k, [k.ne[0], k.ne[1], 1, k.ne[2]], [k.nb[1], k.nb[2], k.nb[2]])
}

/** Σ p · v: p f32[nRead, rows, G] → f32[d, rows, G]; over the whole tiles, and over what has begun of the last one. */
function weigh(g: Graph, p: Tensor, v: Store, isSingle: boolean): Tensor {
  const [nRead, rows, G] = p.ne
  const nTiles = Math.floor(nRead / TILE)
  const nRest = nRead % TILE
  const d = v.layout.width
  const parts: Tensor[] = []
  if (nTiles > 0) {
    const tiles = g.view(p, [TILE, nTiles, rows, G], [TILE * p.nb[0], p.nb[1], p.nb[2]])
    const perTile = product(g, v.tiles(g, nTiles), g.permute(tiles, 0, 2, 1, 3), isSingle) // f32[d, rows, nTiles, G]
    parts.push(g.reshape(nTiles === 1 ? perTile : g.sumRows(g.cont(g.permute(perTile, 1, 2, 0, 3))), d, rows, G))
  }
  if (nRest > 0) {
    const rest = g.view(p, [nRest, rows, 1, G], [p.nb[1], p.nb[2], p.nb[2]], nTiles * TILE * p.nb[0])
    parts.push(g.reshape(product(g, v.tile(g, nTiles, nRest), rest, isSingle), d, rows, G))
  }
  return parts.reduce((a, b) => g.add(a, b))
}

/**
 * a[n, m, t, G] · b[n, rows, t, G] → f32[m, rows, t, G]. For a single query the rows go to dimension 2: products with one
 * row take ggml's plain kernel, where threads meet twice per product; with more they would meet twice per head and tile.
 */
function product(g: Graph, a: Tensor, b: Tensor, isSingle: boolean): Tensor {
  if (!isSingle) return g.mulMat(a, b)
  const [n, rows, t, G] = b.ne
  const single = t === 1 ? g.view(b, [n, 1, rows, G], [b.nb[1], b.nb[1], b.nb[3]]) : g.reshape(g.cont(b), n, 1, rows * t, G)
  return g.reshape(g.mulMat(a, single), a.ne[1], rows, t, G)
}

/** → f32[d · H, n]. */
function readByFlash({ g, shape }: Step, { cache, nTokens: n, nRead }: StepPart, { il, q, mask }: Read): Tensor {
  const { k, v } = cache.layers[il]!
  const { headDim: d, nHead: H } = shape
  const o = g.flashAttnExt(g.permute(q, 0, 2, 1, 3), k.rows(g, nRead), v.rows(g, nRead), mask, 1 / Math.sqrt(d))
  return g.reshape(o, d * H, n)
}
