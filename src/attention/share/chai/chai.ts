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
import type { ModelShape } from '../core/shape.ts'
import type { SequenceCache } from '../kv/cache.ts'
import { calibratedClusters } from './chai-calibration.ts'
import { ClusteredRead } from './clustered-read.ts'
import { FLASH_QUERIES } from './dense.ts'
import { FirstTokens, N_FIRST } from './first-tokens.ts'
import { type Clustering, clusterHeads, CLUSTERINGS, type HeadClusters } from './head-clusters.ts'
import type { Share, ShareMethod } from './method.ts'
import { queriesAtOnce } from './pieces.ts'

const MOST_HEADS = 4096
const COUNTS = /^\d{1,4}(x\d{1,4})?(\/\d{1,4}(x\d{1,4})?)*$/
const count = z.int().min(1).max(MOST_HEADS)

const options = z
  .object({
    file: z
      .string()
      .regex(/^[^+,=]{1,4096}$/, 'a path without + , and =')
      .optional()
      .describe('clusters of each layer as kvasir calibrate chai found them (default: MODEL.chai.json beside the model)'),
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
  exactFor: () => ({ ratio: 1 }),
  tightFor: () => ({ ratio: 0.5 }),
  tellsNoProbabilities: true,
  conflicts: {
    sparq: WITH_VALUES,
    hip: WITH_VALUES,
  },
  refuses(shape, chosen) {
    const counts = countsOf(chosen, shape)
    return typeof counts === 'string' ? counts : null
  },
  bind: (chosen, shape) => share(countsOf(chosen, shape) as readonly number[], chosen, shape),
}

/** Clusters of each layer, or why there are none to be had. */
function countsOf({ file, clusters, ratio }: Options, shape: ModelShape): readonly number[] | string {
  const { nLayer, nHeadKv: G } = shape
  if (clusters === undefined && ratio === undefined) return calibratedClusters(shape, file)
  if (ratio !== undefined) return Array(nLayer).fill(Math.max(1, Math.round(ratio * G)))
  const counts = String(clusters)
    .split('/')
    .flatMap((span) => {
      const [a, b] = span.split('x').map(Number)
      return b === undefined ? [a!] : (Array(a!).fill(b) as number[])
    })
  if (counts.length === 1 && !String(clusters).includes('x')) counts.push(...(Array(nLayer - 1).fill(counts[0]) as number[]))
  if (counts.length !== nLayer) return `clusters are given for ${counts.length} layers, and it has ${nLayer}`
  const wrong = counts.find((n) => n < 1 || n > G)
  return wrong === undefined ? counts : `a layer cannot have ${wrong} clusters: it has ${G} heads of keys`
}

function share(
  counts: readonly number[],
  { clustering, causal }: { readonly clustering: Clustering; readonly causal: boolean },
  shape: ModelShape,
): Share {
  const { nHeadKv: G } = shape
  const isClustered = (il: number) => counts[il]! < G
  const isIdle = !counts.some((n) => n < G)
  /** Clusters of each layer; null for those that are left as they are. */
  const found = new WeakMap<SequenceCache, readonly (HeadClusters | null)[]>()

  return {
    stores: (il, own) => (isClustered(il) ? { ...own, first: FirstTokens.layout(shape) } : own),
    mostTokens(cache) {
      if (isIdle) return Infinity
      return cache.nTokens < N_FIRST ? N_FIRST - cache.nTokens : Math.max(FLASH_QUERIES, queriesAtOnce(shape, cache))
    },
    graphKey: (cache) => (found.has(cache) ? 'clustered' : ''),
    nNodes: () => (isIdle ? 0 : ClusteredRead.nNodes(shape)),
    canTruncate: (cache, nTokens) => !found.has(cache) || nTokens >= N_FIRST,
    keyShare: (il, cache) => (found.get(cache)?.[il] ? (counts[il]! + G) / (2 * G) : 1),

    start(step, part, own) {
      const clusters = found.get(part.cache)
      if (clusters === undefined) {
        const first = isIdle ? null : new FirstTokens(step, part)
        return (layer, projected) => {
          if (isClustered(layer.il)) first?.keep(layer, projected)
          return own.attend(layer, projected).o
        }
      }
      const reader = new ClusteredRead(step, part, own)
      return (layer, projected) => {
        const ours = clusters[layer.il]!
        return ours === null ? own.attend(layer, projected).o : reader.attend(layer, projected, ours)
      }
    },

    settle(cache) {
      if (isIdle || found.has(cache) || cache.nTokens < N_FIRST) return
      const clusters = cache.layers.map(({ stores, rows }, il) => {
        if (!isClustered(il)) return null
        const gram = FirstTokens.compare(stores['first']!, shape, causal)
        const ours = clusterHeads(gram, counts[il]!, clustering)
        for (const [name, store] of Object.entries(stores)) {
          if (name === 'first') store.keepHeads([], 0)
          else if (name !== 'v') store.keepHeads(ours.heads, rows[0]!.nHigh)
        }
        return ours
      })
      found.set(cache, clusters)
    },
  }
}
