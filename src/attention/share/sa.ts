/**
 * Shared Attention: neighbouring layers attend alike. A span of layers takes the probabilities of the layer before it, head by
 * head, and applies them to its own values; it computes no queries and no keys, and keeps no keys. Nothing is trained.
 *
 * Liao and Vargas, "Beyond KV Caching: Shared Attention for Efficient LLMs" (arXiv 2407.12866), section 4: P_l := P of the last
 * layer that does not share, O_l = P_l · V_l. Their spans lie late: layers 23 to 26 of 32, which take those of layer 22; in
 * early layers sharing fails. `auto` is the same part of any model's depth; where not all of these layers see the same tokens,
 * the longest run of them that sees what the layer before it sees.
 *
 * Where we differ: the authors' code still computes queries in the span; here they are left out.
 *
 * Cost per token and layer of the span: G·T·d·e bytes and 2·H·T·d FLOPs, half of dense. The layer before it is read by products,
 * and its probabilities, 4·H·T bytes per query, stay in memory until the span ends: prompts are read in smaller pieces.
 */
import { z } from 'zod'
import type { ModelShape } from '../../core/shape.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { ungroupHeads } from '../kernels/heads.ts'
import { queriesAtOnce } from '../kernels/chunk-budget.ts'
import { applyValues } from '../kernels/values.ts'
import type { Share, ShareMethod } from '../method.ts'
import { layersOf, outside, range, spans } from './layer-spans.ts'
import { refusesLayer, refusesSharing } from './refusals.ts'

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
  wantsSameRows: true,
  refuses(shape, { layers }) {
    const shared = sharedLayers(layers, shape)
    return (
      refusesSharing(shape) ?? outside(shared, shape.nLayer) ?? refusesSpans(shared, shape) ?? refusesNone(shared, layers, shape)
    )
  },
  bind: ({ layers }, shape) => shareProbs(new Set(sharedLayers(layers, shape)), shape),
}

function sharedLayers(layers: string | number, shape: ModelShape): number[] {
  return layersOf(layers, alike(paperSpan(shape), shape))
}

function paperSpan({ nLayer }: ModelShape): number[] {
  const first = Math.max(1, Math.round((23 / 32) * nLayer))
  return range(first, Math.min(nLayer - 1, Math.max(first, Math.round((27 / 32) * nLayer) - 1)))
}

/** The longest run of neighbours that are each like the layer before. */
function alike(span: readonly number[], { layers }: ModelShape): number[] {
  let [longest, run]: [number[], number[]] = [[], []]
  for (const il of span) {
    run = refusesLayer(layers[il]!, layers[il - 1]!) === null ? [...run, il] : []
    if (run.length > longest.length) longest = run
  }
  return longest
}

/** Why a layer cannot take the probabilities of the last one that does not share, or null. */
function refusesSpans(shared: readonly number[], { layers }: ModelShape): string | null {
  for (const il of shared) {
    const source = layers.findLast((layer) => layer.il < il && !shared.includes(layer.il))
    if (source === undefined) return `layer ${il} has none before it whose attention it could take`
    const reason = refusesLayer(layers[il]!, source)
    if (reason !== null) return `${reason}, whose attention it would take`
  }
  return null
}

/** Why `auto` has found no layers, or null. */
function refusesNone(shared: readonly number[], text: string | number, shape: ModelShape): string | null {
  if (shared.length > 0 || text !== 'auto') return null
  const [il] = paperSpan(shape)
  if (il === undefined) return 'it has one layer, and the first has none before it to share with'
  return `${refusesLayer(shape.layers[il]!, shape.layers[il - 1]!)}, and no other layer near is like the one before it`
}

/** Probabilities f32[m, n · g, G] over rows from `from` on. */
interface Found {
  readonly p: Tensor
  readonly from: number
}

function shareProbs(shared: ReadonlySet<number>, shape: ModelShape): Share {
  const isSource = (il: number) => !shared.has(il) && shared.has(il + 1)
  return {
    stores: ({ il }, own) => (shared.has(il) ? { v: { ...own['v']!, order: 'transposed' } } : own),
    wantsProbs: isSource,
    costShare: (il) => (shared.has(il) ? 1 / 2 : 1),
    maxChunk: (cache) => (shared.size === 0 ? Infinity : queriesAtOnce(shape, cache)),

    record(chunk, _, base) {
      const { g, nTokens } = chunk
      let found: Found | null = null
      return (layer, projected) => {
        const { il } = layer
        if (shared.has(il)) {
          base.write(layer, { v: projected.v })
          const { p, from } = found!
          return ungroupHeads(g, layer, applyValues(g, layer, p, { v: chunk.layer(il).v, from }), nTokens)
        }
        if (!isSource(il)) return base.attend(layer, projected).o
        base.store(layer, projected)
        const view = base.view(layer, projected)
        const { o, p } = base.read(view, projected)
        found = { p: p!.values, from: view.from }
        return o
      }
    },
  }
}
