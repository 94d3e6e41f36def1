/**
 * CHAI: heads of a layer that attend alike are clustered, and one head of a cluster attends for all of them: they use its
 * probabilities with values of their own. How many clusters a layer has is found once per model; which heads belong together is
 * found anew in every request, from its first five tokens. Queries and keys of the other heads are then neither computed nor kept.
 *
 * Agarwal et al., "CHAI: Clustered Head Attention for Efficient LLM Inference" (arXiv 2403.08058), sections 3.2 (clusters per
 * layer, offline), 3.3 (membership, online) and 3.4 (attention). The number of clusters comes from `kvasir calibrate chai`.
 *
 * Where we differ, or the sources leave it open:
 * - A head's feature is causal by default: softmax(q·kᵀ/√d) of the first five tokens, a token seeing itself and those before; the
 *   released code lets them see later ones (`causal=false`). The paper clusters by k-means, the released code joins by average
 *   linkage of the cosine; that is the default, for it knows no chance and no scale. Representative is a cluster's lowest head.
 * - With grouped queries, KV heads are clustered: a feature is that of all its query heads, one after another, and query head j of
 *   a member uses the probabilities of query head j of the representative. With a KV head per query head this is the paper's.
 * - Keys of the other heads really leave memory, and their rows of Wq and Wk are not multiplied, unless the weights lie in a
 *   layout without rows, or several requests share a step: then all are multiplied once for everybody, and most are dropped.
 *
 * Cost per token and layer with c clusters of G heads: (c + G)·T·d·e bytes, 2·(c + G)·g·T·d FLOPs; memory as bytes. A prompt is
 * read by flash attention per cluster with the values of all its members side by side, in which scores cost c/G of dense; products
 * over all probabilities take a twentieth longer. Projections of representatives cost c/G: each run of neighbours is a product of
 * its own. `mul_mat_id` saves 4 % for one token, and takes up to twice as long for 512.
 */
import { z } from 'zod'
import type { ModelShape } from '../../../core/shape.ts'
import type { KvCache } from '../../../kv/cache.ts'
import { FLASH_QUERIES } from '../../kernels/read-densely.ts'
import { queriesAtOnce } from '../../kernels/chunk-budget.ts'
import type { Share, ShareMethod } from '../../method.ts'
import { attentionInvalid, refusalOf, refusesSharing } from '../refusals.ts'
import { calibratedClusters } from './calibration.ts'
import { ClusteredRead } from './clustered-read.ts'
import { FirstTokens, N_FIRST } from './first-tokens.ts'
import { type Clustering, clusterHeads, CLUSTERINGS, type HeadClusters } from './head-clusters.ts'

const MOST_HEADS = 4096
const COUNTS = /^\d{1,4}(x\d{1,4})?(\/\d{1,4}(x\d{1,4})?)*$/
const count = z.int().min(1).max(MOST_HEADS)

const options = z
  .object({
    file: z
      .string()
      .regex(/^[^+,=]{1,4096}$/, 'a path without + , and =')
      .optional()
      .describe(
        'clusters of each layer as kvasir calibrate chai found them; a name on a server (default: MODEL.chai.json beside the model)',
      ),
    clusters: z
      .union([count, z.string().regex(COUNTS, 'clusters of all layers are written 8, of each 18x32/14x4')])
      .optional()
      .describe('clusters of every layer, or of each, as 18x32/14x4 (heads of keys; default: as the file says)'),
    ratio: z
      .number()
      .min(0)
      .max(1)
      .optional()
      .describe('clusters of every layer as a share of its KV heads, at least one (default: as the file says)'),
    clustering: z.enum(CLUSTERINGS).default('agglomerative').describe('how heads are grouped'),
    causal: z.boolean().default(true).describe('the first tokens see no later ones when heads are compared'),
  })
  .refine(({ file, clusters, ratio }) => [file, clusters, ratio].filter((given) => given !== undefined).length < 2, {
    path: ['ratio'],
    message: 'file, clusters and ratio say the same in three ways: give one of them',
  })
type Options = z.output<typeof options>

const WITH_VALUES = 'it reads values of the very heads whose keys it chose, and clustered heads share keys, not values'

export const chai: ShareMethod<typeof options> = {
  name: 'chai',
  axis: 'share',
  summary: 'Heads that attend alike share the queries and keys of one of them; values stay their own.',
  source: 'CHAI, arXiv 2403.08058',
  cost: '(c + G)·T·d·e bytes per layer and token with c clusters, after the first five tokens',
  options,
  example: 'ratio=0.8',
  tellsNoProbs: true,
  conflicts: { sparq: WITH_VALUES, hip: WITH_VALUES },
  refuses: (shape, chosen) => refusesSharing(shape) ?? refusalOf(() => countsOf(chosen, shape)),
  bind: (chosen, shape) => shareClusters(countsOf(chosen, shape), chosen, shape),
}

/** Clusters of each layer. Errors: `attention_invalid`. */
function countsOf({ file, clusters, ratio }: Options, shape: ModelShape): readonly number[] {
  const { nLayer, layers } = shape
  if (ratio !== undefined) return layers.map(({ nHeadKv }) => Math.max(1, Math.round(ratio * nHeadKv)))
  if (clusters === undefined) return calibratedClusters(shape, file)
  const counts = String(clusters)
    .split('/')
    .flatMap((span) => {
      const [a, b] = span.split('x').map(Number)
      return b === undefined ? [a!] : (Array(a!).fill(b) as number[])
    })
  if (counts.length === 1 && !String(clusters).includes('x')) counts.push(...(Array(nLayer - 1).fill(counts[0]) as number[]))
  if (counts.length !== nLayer) throw attentionInvalid(`clusters are given for ${counts.length} layers, and it has ${nLayer}`)
  const wrong = layers.find(({ il, nHeadKv }) => counts[il]! < 1 || counts[il]! > nHeadKv)
  if (wrong === undefined) return counts
  throw attentionInvalid(`a layer cannot have ${counts[wrong.il]} clusters: it has ${wrong.nHeadKv} heads of keys`)
}

/** Clusters of each layer, null for those that are left as they are; all of it null until heads were compared. */
type Found = readonly (HeadClusters | null)[] | null

function shareClusters(
  counts: readonly number[],
  { clustering, causal }: { readonly clustering: Clustering; readonly causal: boolean },
  shape: ModelShape,
): Share<Found> {
  const { layers } = shape
  const isClustered = (il: number) => counts[il]! < layers[il]!.nHeadKv
  const isIdle = !layers.some(({ il }) => isClustered(il))
  const foundIn = ({ memo }: KvCache) => (memo.share ?? null) as Found

  return {
    stores: (layer, own) => (isClustered(layer.il) ? { ...own, first: FirstTokens.layout(layer) } : own),
    maxChunk(cache) {
      if (isIdle) return Infinity
      return cache.nTokens < N_FIRST ? N_FIRST - cache.nTokens : Math.max(FLASH_QUERIES, queriesAtOnce(shape, cache))
    },
    facts: foundIn,
    costShare(il, found) {
      const { nHeadKv: G } = layers[il]!
      return found?.[il] ? (counts[il]! + G) / (2 * G) : 1
    },
    truncate: (cache, nTokens) => foundIn(cache) === null || nTokens >= N_FIRST,

    record(chunk, found, base) {
      const first = found === null && !isIdle ? new FirstTokens(chunk) : null
      const reader = new ClusteredRead(chunk, base)
      return (layer, projected) => {
        const { il } = layer
        if (first && isClustered(il)) first.keep(layer, projected)
        const clusters = found?.[il]
        return clusters ? reader.attend(layer, projected, clusters) : base.attend(layer, projected).o
      }
    },

    /** Once: compares heads by their first tokens, and gives back what members no longer need. */
    commit(cache) {
      if (isIdle || foundIn(cache) !== null || cache.nTokens < N_FIRST) return
      cache.memo.share = layers.map((layer): HeadClusters | null => {
        const { il } = layer
        if (!isClustered(il)) return null
        const { stores } = cache.layers[il]!
        const clusters = clusterHeads(FirstTokens.compare(stores['first']!, layer, causal), counts[il]!, clustering)
        for (const name of Object.keys(stores)) {
          if (name === 'first') cache.keepHeads(il, name, [])
          else if (name !== 'v') cache.keepHeads(il, name, clusters.heads)
        }
        return clusters
      })
    },
  }
}
