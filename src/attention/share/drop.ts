/**
 * Attention-layer dropping: in deep layers attention can be skipped. Nothing is added to the residual there, the feed-forward
 * network stays; the layer computes no queries, keys or values, and keeps none. Nothing is trained.
 *
 * Tyukin et al., "Attention Is All You Need But You Don't Need All Of It For Inference of Large Language Models" (arXiv
 * 2407.15516): attention sublayers are dropped from the deepest layer on. `auto` is the third of the layers that the paper drops
 * from a model of 13 billion parameters.
 *
 * Cost per token and dropped layer: nothing.
 */
import { z } from 'zod'
import type { ModelShape } from '../../core/shape.ts'
import type { Share, ShareMethod } from '../method.ts'
import { layersOf, outside, range, spans } from './layer-spans.ts'
import { refusesSharing } from './refusals.ts'

const options = z.object({
  layers: spans.describe('layers whose attention is skipped, as 21-31 or 20-25/28 (layers)'),
})

export const drop: ShareMethod<typeof options> = {
  name: 'drop',
  axis: 'share',
  summary: 'Skips attention in some layers, the deepest third by default; they keep no keys and values.',
  source: 'Attention dropping, arXiv 2407.15516',
  cost: 'nothing in a dropped layer; the others as they are',
  options,
  example: 'layers=20-30',
  refuses(shape, { layers }) {
    const dropped = droppedLayers(layers, shape)
    const isAll = dropped.length === shape.nLayer
    return refusesSharing(shape) ?? outside(dropped, shape.nLayer) ?? (isAll ? 'no layer would attend to anything' : null)
  },
  bind: ({ layers }, shape) => dropLayers(new Set(droppedLayers(layers, shape))),
}

function droppedLayers(layers: string | number, { nLayer }: ModelShape): number[] {
  return layersOf(layers, range(nLayer - Math.round(nLayer / 3), nLayer - 1))
}

function dropLayers(dropped: ReadonlySet<number>): Share {
  return {
    stores: ({ il }, own) => (dropped.has(il) ? {} : own),
    record:
      (_, __, { attend }) =>
      (layer, projected) =>
        dropped.has(layer.il) ? null : attend(layer, projected).o,
  }
}
