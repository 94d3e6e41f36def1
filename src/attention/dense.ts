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
import { TILE } from '../kv/layout.ts'
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
  const scores = g.mulMat(k.rows(g, nRead), g.reshape(queries, d, rows, G))
  const p = g.softMaxExt(g.reshape(scores, nRead, n, H), mask, 1 / Math.sqrt(d))
  const tiles = g.permute(g.reshape(p, TILE, nRead / TILE, rows, G), 0, 2, 1, 3)
  const perTile = g.mulMat(v.columns(g, nRead), tiles) // f32[d, rows, nRead / TILE, G]
  const sum = nRead === TILE ? perTile : g.sumRows(g.cont(g.permute(perTile, 1, 2, 0, 3)))
  const heads = g.reshape(sum, d, n, H)
  return g.reshape(n === 1 ? heads : g.cont(g.permute(heads, 0, 2, 1, 3)), d * H, n)
}

/** → f32[d · H, n]. */
function readByFlash({ g, shape }: Step, { cache, nTokens: n, nRead }: StepPart, { il, q, mask }: Read): Tensor {
  const { k, v } = cache.layers[il]!
  const { headDim: d, nHead: H } = shape
  const o = g.flashAttnExt(g.permute(q, 0, 2, 1, 3), k.rows(g, nRead), v.rows(g, nRead), mask, 1 / Math.sqrt(d))
  return g.reshape(o, d * H, n)
}
