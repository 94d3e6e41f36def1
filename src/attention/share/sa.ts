/**
 * Shared Attention: neighbouring layers attend alike. A span of layers takes the probabilities of the layer before it, head by
 * head, and applies them to its own values; it computes no queries and no keys, and keeps no keys. Nothing is trained.
 *
 * Liao and Vargas, "Beyond KV Caching: Shared Attention for Efficient LLMs" (arXiv 2407.12866), section 4: P_l := P of the last
 * layer that does not share, O_l = P_l · V_l. Their spans lie late: layers 23 to 26 of 32, which take those of layer 22; in
 * early layers sharing fails. `auto` is the same part of any model's depth.
 *
 * Where we differ: the authors' code still computes queries in the span; here they are left out.
 *
 * Cost per token and layer of the span: G·T·d·e bytes and 2·H·T·d FLOPs, half of dense. The layer before it is read by products,
 * and its probabilities, 4·H·T bytes per query, stay in memory until the span ends: prompts are read in smaller pieces.
 */
import { z } from 'zod'
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { layersOf, outside, range, spans } from './layer-spans.ts'
import type { Share, ShareMethod } from './method.ts'
import { queriesAtOnce, ungroupHeads, weighStored } from './pieces.ts'

const options = z.object({
  layers: spans.describe('layers that take the probabilities of the layer before their span, as 10-20 or 10-20/24 (layers)'),
})

export const sa: ShareMethod<typeof options> = {
  name: 'sa',
  axis: 'share',
  summary: 'A span of layers uses the attention weights of the layer before it; it computes and keeps no keys.',
  source: 'Shared Attention, arXiv 2407.12866',
  cost: 'G·T·d·e bytes per layer of the span and token, half of dense; prompts in pieces, by products',
  options,
  example: 'layers=10-20/24',
  exactFor: () => ({ layers: 'none' }),
  tightFor: () => ({ layers: '2-3' }),
  wantsSameRows: true,
  refuses(shape, { layers }) {
    const shared = sharedLayers(layers, shape)
    if (shared.length === 0 && layers !== 'none') return 'it has one layer, and the first has none before it to share with'
    if (shared[0] === 0) return 'layer 0 has none before it whose attention it could take'
    return outside(shared, shape.nLayer)
  },
  bind: ({ layers }, shape) => share(new Set(sharedLayers(layers, shape)), shape),
}

function sharedLayers(layers: string | number, { nLayer }: ModelShape): number[] {
  const first = Math.max(1, Math.round((23 / 32) * nLayer))
  return layersOf(layers, range(first, Math.min(nLayer - 1, Math.max(first, Math.round((27 / 32) * nLayer) - 1))))
}

function share(shared: ReadonlySet<number>, shape: ModelShape): Share {
  return {
    stores: (il, own) => (shared.has(il) ? { v: { ...own['v']!, order: 'columns' } } : own),
    needsProbabilities: (il) => !shared.has(il) && shared.has(il + 1),
    keyShare: (il) => (shared.has(il) ? 1 / 2 : 1),
    mostTokens: (cache) => (shared.size === 0 ? Infinity : queriesAtOnce(shape, cache)),

    start(step, part, own) {
      /** f32[nRead, n · g, G] of the last layer that does not share. */
      let p: Tensor | null = null
      return (layer, projected) => {
        if (!shared.has(layer.il)) {
          const found = own.attend(layer, projected)
          p = found.p?.values ?? null
          return found.o
        }
        own.write(layer, { v: projected.v })
        return ungroupHeads(step, weighStored(step, p!, part.cache.layers[layer.il]!.v), part.nTokens)
      }
    },
  }
}
