/** The empty answer of the keep axis: every row stays, at its own position. */
import { type ModelShape, windowOf } from '../../core/shape.ts'
import type { Chunk } from '../chunk.ts'
import { firstTile, rowMask } from '../kernels/mask.ts'
import { writer } from '../kernels/write.ts'
import type { AttentionLayer, Keep, KeepPart } from '../method.ts'

/** Where reads of layers with a window begin, by window. */
type Facts = { readonly [window: string]: number }

export function keepAll({ layers }: ModelShape): Keep<Facts> {
  const windows = [...new Set(layers.map(windowOf))].filter(Number.isFinite)
  return {
    positions: 'absolute',
    capacity: (nCtx) => nCtx,
    facts: ({ nTokens }) => Object.fromEntries(windows.map((window) => [window, firstTile({ window }, nTokens)])),
    record: (chunk, facts) => inPlace(chunk, { from: (layer) => facts[windowOf(layer)] ?? 0 }),
  }
}

interface Places {
  /** Every layer and head has rows of its own; otherwise all maps are alike. */
  readonly perHead?: boolean
  /** First row that a layer's queries see, a whole tile. */
  readonly from?: (layer: AttentionLayer) => number
}

/** Keys that stand at their own positions. The rows in use must lie together from 0 on. */
export function inPlace(chunk: Chunk, { perHead = false, from = () => 0 }: Places = {}): KeepPart {
  return {
    write: writer(chunk, perHead),
    view(layer, { rotated }) {
      const { k, v } = chunk.layer(layer.il)
      const first = from(layer)
      const nKv = chunk.nKv - first
      const mask = rowMask(chunk, layer.visible, first)
      return { layer, q: rotated.q, k: k.rows(chunk.g, nKv, first), v, mask, from: first, nKv }
    },
  }
}
