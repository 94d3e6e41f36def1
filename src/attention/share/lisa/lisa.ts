/**
 * LiSA, learnable sharing attention: neighbouring layers attend alike, but their heads stand in another order, and each layer
 * has something of its own. A replaced layer takes the scores of the layer before, lets a small network over the heads align
 * them, and adds a correction from queries and keys of low rank. It keeps the keys of low rank in place of its own.
 *
 * Mu et al., "Cross-layer Attention Sharing for Pre-trained Large Language Models" (arXiv 2408.01890, TACL 14, 2026). What is
 * known: the network over heads, the low-rank projections, 53 to 84% of the layers replaced, Q and K made six times smaller.
 *
 * What the sources leave open, chosen here. For query i, key j, over all heads:
 *   S_l = A · S_l-1 + W2 · silu(W1 · S_l-1) + Q'K'ᵀ / √r,   P_l = softmax(S_l + mask),   O_l = P_l · V_l
 * - S are scaled scores before softmax and mask; S_l goes on to the next replaced layer, and a layer with attention of its own
 *   begins anew.
 * - A begins as the identity, W2 as zeros and Q' as zeros: before training, LiSA is shared attention (sa.ts).
 * - Q' and K' are rotated: W_K' begins as rotary pairs of W_K, with the frequencies they have there.
 * - K' has as many heads as K, the network as many as Q.
 * - r is the largest power of two that makes heads at least six times smaller: its keys fill the processor's vectors.
 * - m is a quarter of the heads, but at least 8.
 *
 * Cost per token and layer replaced: G·T·(r + d)·e bytes, and 2·H·T·(r + d) + 2·H·T·(H + 2m) FLOPs. The layer before is read by
 * products, and its scores, 4·H·T bytes per query, stay in memory: prompts are read in smaller pieces.
 */
import { z } from 'zod'
import type { ModelShape } from '../../../core/shape.ts'
import type { Graph } from '../../../ggml/graph.ts'
import type { Tensor } from '../../../ggml/tensor.ts'
import { ungroupHeads } from '../../kernels/heads.ts'
import { queriesAtOnce } from '../../kernels/chunk-budget.ts'
import { softmax } from '../../kernels/softmax.ts'
import { applyValues } from '../../kernels/values.ts'
import type { AttentionLayer, Share, ShareMethod } from '../../method.ts'
import { projections } from '../../projected.ts'
import { refusalOf, refusesLayer, refusesSharing } from '../refusals.ts'
import { resourcePath } from '../resource.ts'
import { lisaRope } from './adapter-file.ts'
import { lisaAdapter, type LisaAdapter, type LisaLayer } from './adapter.ts'

const options = z.object({
  adapter: z
    .string()
    .max(4096)
    .optional()
    .describe('the file that `kvasir train lisa` wrote for the model; a name on a server (no default)'),
})

const NEEDS_SCORES = 'a replaced layer takes the scores of all keys from the layer before, where the other reads only some'

export const lisa: ShareMethod<typeof options> = {
  name: 'lisa',
  axis: 'share',
  summary: 'Layers align the scores of the layer before by a small learnt network, and correct them by keys of low rank.',
  source: 'LiSA, arXiv 2408.01890',
  cost: 'G·T·(r + d)·e bytes per replaced layer and token, with r = d/8 0.56 of dense; prompts in pieces, by products',
  options,
  example: 'adapter=models/kvasir-demo-lisa.gguf',
  needs: 'an adapter that `kvasir train lisa` made for the model',
  wantsSameRows: true,
  conflicts: { hip: NEEDS_SCORES, sparq: NEEDS_SCORES },
  refuses(shape, { adapter }) {
    const reason = refusesSharing(shape) ?? refusesScores(shape)
    if (reason !== null) return reason
    if (!adapter) return 'it needs what was learnt for the model, lisa:adapter=FILE; `kvasir train lisa` makes such a file'
    return refusalOf(() => adapterOf(shape, adapter))
  },
  bind: ({ adapter }, shape) => lisaShare(adapterOf(shape, adapter ?? ''), shape),
}

/** Errors: those of {@link resourcePath} and {@link lisaAdapter}. */
function adapterOf(shape: ModelShape, name: string): LisaAdapter {
  return lisaAdapter(resourcePath(shape, name), shape)
}

/** Why scores cannot go from layer to layer, or null. */
function refusesScores({ layers }: ModelShape): string | null {
  const capped = layers.find(({ softcap }) => softcap !== null)
  if (capped)
    return `its scores are capped (layer ${capped.il}: ${capped.softcap}), and LiSA sums scores of two layers as they are`
  const windowed = layers.find(({ visible }) => visible !== 'causal')
  if (windowed) return `layer ${windowed.il} does not see all tokens, and LiSA takes all scores of a layer into the next`
  return layers.map((layer) => refusesLayer(layer, layers[0]!)).find((reason) => reason !== null) ?? null
}

export function lisaShare({ rank, layers }: LisaAdapter, shape: ModelShape): Share {
  const isReplaced = (il: number) => layers.has(il)
  const goesOn = (il: number) => !isReplaced(il) && isReplaced(il + 1)
  return {
    /** What is kept beside values is keys, whole or some of them. */
    stores({ il }, own) {
      if (!isReplaced(il)) return own
      const ofLowRank = Object.entries(own).map(([name, store]) => [name, name === 'v' ? store : { ...store, width: rank }])
      return Object.fromEntries(ofLowRank)
    },
    wantsProbs: (il) => isReplaced(il) || goesOn(il),
    costShare: (il) => (isReplaced(il) ? (1 + rank / shape.headDim) / 2 : 1),
    /** Scores of two layers and what the network makes of them are in memory at once. */
    maxChunk: (cache) => (layers.size === 0 ? Infinity : queriesAtOnce({ nHead: 4 * shape.nHead }, cache)),

    record({ g, nTokens: n, positions }, _, base) {
      /** f32[nKv, n · g, G] of the layer before, scaled. */
      let scores: Tensor | null = null
      return (layer, projected) => {
        const replaced = layers.get(layer.il)
        if (!replaced && !goesOn(layer.il)) return base.attend(layer, projected).o
        const ours = replaced ? lowRank(layer, replaced, rank) : layer
        const from = replaced ? projections(g, ours, { x: projected.x, positions, v: projected.v }) : projected
        base.store(ours, from)
        const view = base.view(ours, from)
        const products = base.scores(view, from)
        scores = replaced
          ? aligned(g, replaced, { nHead: layer.nHead, before: scores!, products })
          : g.scale(products, layer.scale)
        const p = softmax(g, { ...layer, scale: 1 }, scores, { mask: view.mask, n })
        return ungroupHeads(g, layer, applyValues(g, layer, p, view), n)
      }
    },
  }
}

/** The layer with queries and keys of `rank` elements. Queries, which are few, are scaled in place of scores. */
export function lowRank(layer: AttentionLayer, { q, k, ropeFactors }: LowRank, rank: number): AttentionLayer {
  const rope = lisaRope(rank)
  return {
    ...layer,
    dK: rank,
    scale: 1,
    project(g, x, which) {
      if (which === 'v') return layer.project(g, x, which)
      const y = g.mulMat(which === 'q' ? q : k, x)
      const heads = g.reshape(y, rank, y.ne[0] / rank, y.ne[1])
      return which === 'q' ? g.scale(heads, 1 / Math.sqrt(rank)) : heads
    },
    rotate: (g, x, positions) => g.ropeExt(x, positions, ropeFactors, rope),
  }
}

type LowRank = Pick<LisaLayer, 'q' | 'k' | 'ropeFactors'>

/** Keys whose scores of all heads are computed together: reads cover whole multiples of the second, long ones of the first. */
const BLOCKS = [256, 64]

interface Scores {
  readonly nHead: number
  /** f32[m, n · g, G] */
  readonly before: Tensor
  readonly products: Tensor
}

/**
 * products + A · before + W2 · silu(W1 · before), over the heads: f32[m, n · g, G].
 *
 * The heads of a key lie far apart. As sums of whole stretches of keys (out_prod) they need not be brought together first, and
 * stretches that are not too long stay, with all their heads, in a processor's nearest memory.
 */
function aligned(g: Graph, { align, network }: LisaLayer, { nHead: H, before, products }: Scores): Tensor {
  const [m, rows, G] = before.ne
  const block = BLOCKS.find((size) => m % size === 0)!
  const nBlocks = (m * rows * G) / (block * H)
  const x = g.permute(g.reshape(before, block, nBlocks, H), 0, 2, 1, 3) // [block, H, nBlocks]
  const over = (weights: Tensor, y: Tensor) => g.outProd(y, g.broadcast(weights, nBlocks))
  const linear = over(align, x)
  const mixed = network ? g.add(linear, over(network.outer, g.silu(over(network.inner, x)))) : linear
  return g.reshape(g.add(g.reshape(products, block, nBlocks, H), g.permute(mixed, 0, 2, 1, 3)), m, rows, G)
}
