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
import { KvasirError } from '../core/errors.ts'
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { lisaAdapter, type LisaAdapter, type LisaLayer, lisaRope } from './lisa-adapter.ts'
import type { AttentionLayer, Projected, Share, ShareMethod, Step } from './method.ts'
import { partPositions, queriesAtOnce, rotate, softmax, ungroupHeads, weighStored } from './pieces.ts'

const options = z.object({
  adapter: z.string().max(4096).optional().describe('the file that `kvasir train lisa` wrote for the model (no default)'),
})

const NEEDS_SCORES = 'a replaced layer takes the scores of all keys from the layer before, where the other reads only some'

export const lisa: ShareMethod<typeof options> = {
  name: 'lisa',
  axis: 'share',
  summary: 'Layers align the scores of the layer before by a small learnt network, and correct them by keys of low rank.',
  source: 'LiSA, arXiv 2408.01890',
  cost: 'G·T·(r + d)·e bytes per replaced layer and token, with r = d/8 0.56 of dense; prompts in pieces, by products',
  options,
  exactFor: () => ({}),
  tightFor: () => ({}),
  example: 'adapter=models/kvasir-demo-lisa.gguf',
  needs: 'an adapter that `kvasir train lisa` made for the model',
  wantsSameRows: true,
  conflicts: { hip: NEEDS_SCORES, sparq: NEEDS_SCORES },
  refuses(shape, { adapter }) {
    if (!adapter) return 'it needs what was learnt for the model, lisa:adapter=FILE; `kvasir train lisa` makes such a file'
    try {
      lisaAdapter(adapter, shape)
      return null
    } catch (error) {
      if (error instanceof KvasirError) return error.message.replace(/^attention: /, '')
      throw error
    }
  },
  bind: ({ adapter }, shape) => lisaShare(lisaAdapter(adapter ?? '', shape), shape),
}

export function lisaShare({ rank, layers }: LisaAdapter, shape: ModelShape): Share {
  const isReplaced = (il: number) => layers.has(il)
  const goesOn = (il: number) => !isReplaced(il) && isReplaced(il + 1)
  return {
    /** What is kept beside values is keys, whole or some of them. */
    stores(il, own) {
      if (!isReplaced(il)) return own
      const ofLowRank = Object.entries(own).map(([name, store]) => [name, name === 'v' ? store : { ...store, width: rank }])
      return Object.fromEntries(ofLowRank)
    },
    needsProbabilities: (il) => isReplaced(il) || goesOn(il),
    keyShare: (il) => (isReplaced(il) ? (1 + rank / shape.headDim) / 2 : 1),
    /** Scores of two layers and what the network makes of them are in memory at once. */
    mostTokens: (cache) => (layers.size === 0 ? Infinity : queriesAtOnce({ ...shape, nHead: 4 * shape.nHead }, cache)),
    nNodes: () => 32,

    start(step, part, own) {
      const positions = partPositions(step, part)
      /** f32[nRead, n · g, G] of the layer before. */
      let scores: Tensor | null = null
      return (layer, projected) => {
        const replaced = layers.get(layer.il)
        if (!replaced && !goesOn(layer.il)) return own.attend(layer, projected).o
        const [as, from] = replaced ? lowRank({ step, positions, rank }, replaced, { layer, projected }) : [layer, projected]
        own.store(as, from)
        const kept = own.kept(as, from)
        const products = own.scores(kept, from)
        scores = replaced
          ? aligned(step, replaced, { before: scores!, products })
          : step.g.scale(products, 1 / Math.sqrt(shape.headDim))
        const p = softmax(scaled(step), scores, kept.mask, part.nTokens)
        return ungroupHeads(step, weighStored(step, p, kept.v), part.nTokens)
      }
    },
  }
}

/** The step for scores that are scaled already. */
function scaled(step: Step): Step {
  return { ...step, shape: { ...step.shape, headDim: 1 } }
}

interface LowRank {
  readonly step: Step
  readonly positions: Tensor
  readonly rank: number
}

/** Q' / √r and K', f32[r, H, n] and f32[r, G, n], as a layer whose heads have r elements. */
function lowRank(
  { step, positions, rank }: LowRank,
  { q: wq, k: wk, ropeFactors }: LisaLayer,
  { layer, projected }: { readonly layer: AttentionLayer; readonly projected: Projected },
): [AttentionLayer, Projected] {
  const { g } = step
  const as: AttentionLayer = {
    ...{ il: layer.il, output: layer.output, ropeFactors },
    ...{ q: { weight: wq, bias: null }, k: { weight: wk, bias: null }, v: layer.v },
    rope: lisaRope(layer.rope, rank),
  }
  const { x, v } = projected
  const heads = (weight: Tensor) => g.reshape(g.mulMat(weight, x), rank, weight.ne[1] / rank, x.ne[1])
  const q = g.scale(heads(wq), 1 / Math.sqrt(rank))
  const k = heads(wk)
  const turned = (y: Tensor) => rotate(step, as, y, positions)
  return [as, { x, q, k, v, rotated: { q: turned(q), k: turned(k) } }]
}

/** Keys whose scores of all heads are computed together: reads cover whole multiples of the second, long ones of the first. */
const BLOCKS = [256, 64]

interface Scores {
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
function aligned({ g, shape }: Step, { align, network }: LisaLayer, { before, products }: Scores): Tensor {
  const H = shape.nHead
  const [m, rows, G] = before.ne
  const block = BLOCKS.find((size) => m % size === 0)!
  const nBlocks = (m * rows * G) / (block * H)
  const x = g.permute(g.reshape(before, block, nBlocks, H), 0, 2, 1, 3) // [block, H, nBlocks]
  const over = (weights: Tensor, y: Tensor) => g.outProd(y, g.stretch(weights, nBlocks))
  const linear = over(align, x)
  const mixed = network ? g.add(linear, over(network.outer, g.silu(over(network.inner, x)))) : linear
  return g.reshape(g.add(g.reshape(products, block, nBlocks, H), g.permute(mixed, 0, 2, 1, 3)), m, rows, G)
}
