/**
 * HiP: neighbouring keys score alike, so a query need not look at all of them. Ranges of keys are halved round by round, one
 * representative block of each half is scored, and the best halves stay, until blocks of `block_k` keys are left; attention
 * runs over these, the sinks, and a window of recent keys. In decoding the chosen blocks serve `refresh` tokens.
 *
 * Lee et al., "A Training-free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention"
 * (arXiv 2406.09827), section 3 and its appendix. Defaults of the paper (k 512, b_k 2, r_m 8, w 256, sink 16, l_d 3, centre),
 * and query blocks of 64 as in its code (32 in the text). What is searched: tree-search.ts; what is read: block-reader.ts.
 *
 * Where we differ, and why:
 * - The window of a query block begins where its first query's begins, and that of decoded tokens where it began when the
 *   blocks were chosen, cut to whole key blocks. So searched and window keys never overlap, every searched key is visible to
 *   all queries that vote, and no token is invisible between two searches (the paper leaves a gap of `refresh` - 1 tokens).
 * - Boundaries of ranges are not rounded to make neighbouring query blocks probe the same keys. Products of 16 and more voting
 *   rows with cached f16 keys are of 8-bit integers, as in the authors' code, with a scale for each 32; a score of 0 is a score.
 * - While decoding the current query alone chooses; the offloading code of the authors lets the last `refresh` queries vote.
 * - `heads=kv` chooses one list for the query heads of a KV head, by the largest score among them; `query` is the paper.
 * - Where rows are dropped (keep axis) blocks are chosen for every token, over the kept rows in order of position.
 * As in the paper, the queries of a block choose together: a query's keys depend on up to block_q - 1 later tokens, and on
 * where a prompt was cut, unless cuts are multiples of block_q. block_q=1 is free of both, and slow.
 *
 * Cost per token, list and layer, in vectors of d elements: 2·(k + window) read, and 2·(k/stride_k)·⌈log2(T/k)⌉ / refresh
 * searched, about half of that with `first` and `last`; 4·d FLOPs per key read and query head. A prompt takes O(T log T).
 *
 * For keys in slower memory: `Search.keysOf` sees every block that is scored, and BlockReader's gather every one attended. The
 * authors use `representative=last` there.
 */
import { z } from 'zod'
import type { ReadMethod } from '../../method.ts'
import type { Choice } from './choice.ts'
import { readBlocks } from './read-blocks.ts'

const options = z.object({
  k: z.number().int().min(1).max(65536).optional().describe('keys chosen per list (keys; default: 512, contiguous 1024)'),
  block_q: z.number().int().min(1).max(1024).default(64).describe('queries of a prompt that choose together (tokens)'),
  block_k: z
    .number()
    .int()
    .min(1)
    .max(256)
    .optional()
    .describe('keys that are chosen together (keys; default: 2, contiguous 32)'),
  stride_q: z
    .number()
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe('of a query block, every how manieth query votes (tokens; default: 2, contiguous 8)'),
  stride_k: z
    .number()
    .int()
    .min(1)
    .max(256)
    .optional()
    .describe('of a key block, every how manieth key is scored (keys; default: 1, contiguous 8)'),
  window: z.number().int().min(1).max(65536).default(256).describe('recent keys that are always read (tokens)'),
  sink: z.number().int().min(0).max(4096).default(16).describe('first keys that are always chosen, within k (tokens)'),
  dense_layers: z.number().int().min(0).max(1024).default(3).describe('first layers that read everything (layers)'),
  refresh: z.number().int().min(1).max(1024).default(8).describe('decoded tokens between two searches (tokens)'),
  representative: z.enum(['center', 'first', 'last']).default('center').describe('block that is scored for a half'),
  heads: z.enum(['query', 'kv']).default('kv').describe('a list for each query head, or one for those of a KV head'),
  preset: z
    .enum(['paper', 'contiguous'])
    .default('paper')
    .describe('what k, block_k, stride_q and stride_k are by default; contiguous: whole pages of keys'),
})
type Options = z.output<typeof options>

/**
 * `contiguous`: 32 keys of 128 bytes are a page; one key in eight is scored, and one query in eight votes. It chooses twice as
 * many keys, in coarser blocks. Over a short context it is no faster than `paper`.
 */
const PRESETS = {
  paper: { k: 512, block_k: 2, stride_q: 2, stride_k: 1 },
  contiguous: { k: 1024, block_k: 32, stride_q: 8, stride_k: 8 },
} as const satisfies Record<Options['preset'], Partial<Options>>

export const hip: ReadMethod<typeof options> = {
  name: 'hip',
  axis: 'read',
  summary: 'Searches a tree of key blocks for those that score high; reads these, the sinks and a recent window.',
  source: 'HiP, arXiv 2406.09827',
  cost: '2·(k + window)·d·e bytes per list, layer and token, and k·⌈log2(T/k)⌉·2·d·e every `refresh` tokens',
  options,
  example: 'k=512',
  refuses(_, given) {
    const { sink, k, stride_q, block_q, stride_k, block_k } = resolve(given)
    if (sink > k) return `sink ${sink} must not be more than k ${k}, which it is a part of`
    if (stride_q > block_q) return `stride_q ${stride_q} leaves no query of a block of ${block_q}`
    return stride_k > block_k ? `stride_k ${stride_k} leaves no key of a block of ${block_k}` : null
  },
  bind(given, { layers }) {
    const o = resolve(given)
    const choice: Choice = {
      nSlots: Math.ceil(o.k / o.block_k),
      representative: o.representative,
      nSinkBlocks: Math.ceil(o.sink / o.block_k),
      nSampled: Math.floor(o.block_k / o.stride_k),
      blockK: o.block_k,
      strideK: o.stride_k,
      blockQ: o.block_q,
      strideQ: o.stride_q,
      window: o.window,
      isPerQueryHead: o.heads === 'query',
    }
    return readBlocks(choice, { nDense: o.dense_layers, refresh: o.refresh }, layers)
  },
}

/** What was left out is as the preset has it. */
function resolve({ preset, ...given }: Options) {
  const { k, block_k, stride_q, stride_k } = PRESETS[preset]
  return {
    ...given,
    k: given.k ?? k,
    block_k: given.block_k ?? block_k,
    stride_q: given.stride_q ?? stride_q,
    stride_k: given.stride_k ?? stride_k,
  }
}
