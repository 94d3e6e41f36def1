/**
 * HiP: neighbouring keys score alike, so a query need not look at all of them. Ranges of keys are halved round by round, one
 * representative block of each half is scored, and the best halves stay, until blocks of `block_k` keys are left; attention
 * runs over these, the sinks, and a window of recent keys. In decoding the chosen blocks serve `refresh` tokens.
 *
 * Lee et al., "A Training-free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention"
 * (arXiv 2406.09827), section 3 and its appendix. Defaults of the paper (k 512, b_k 2, r_m 8, w 256, sink 16, l_d 3, centre),
 * and query blocks of 64 as in its code (32 in the text). What is searched: hip-search.ts; what is read: hip-read.ts.
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
import { F32, I32 } from '../ggml/types.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { StoreLayout } from '../kv/layout.ts'
import type { ModelShape } from '../core/shape.ts'
import { readAll } from './dense.ts'
import { BlockReader, type Choice, keysAttended, nSearched } from './hip-read.ts'
import { keysSearched, nRounds } from './hip-search.ts'
import { keysDense, type Read, type ReadLayer, type ReadMethod, type Step, type StepPart } from './method.ts'

const options = z.object({
  k: z.number().int().min(1).max(65536).default(512).describe('keys chosen per list (keys)'),
  block_q: z.number().int().min(1).max(1024).default(64).describe('queries of a prompt that choose together (tokens)'),
  block_k: z.number().int().min(1).max(256).default(2).describe('keys that are chosen together (keys)'),
  stride_q: z.number().int().min(1).max(1024).default(2).describe('of a query block, every how manieth query votes (tokens)'),
  stride_k: z.number().int().min(1).max(256).default(1).describe('of a key block, every how manieth key is scored (keys)'),
  window: z.number().int().min(1).max(65536).default(256).describe('recent keys that are always read (tokens)'),
  sink: z.number().int().min(0).max(4096).default(16).describe('first keys that are always chosen, within k (tokens)'),
  dense_layers: z.number().int().min(0).max(1024).default(3).describe('first layers that read everything (layers)'),
  refresh: z.number().int().min(1).max(1024).default(8).describe('decoded tokens between two searches (tokens)'),
  representative: z.enum(['center', 'first', 'last']).default('center').describe('block that is scored for a half'),
  heads: z.enum(['query', 'kv']).default('kv').describe('a list for each query head, or one for those of a KV head'),
  preset: z
    .enum(['paper', 'contiguous'])
    .default('paper')
    .describe('contiguous: whole pages of keys; options left at their defaults become those of PRESETS'),
})

type Options = z.output<typeof options>

/**
 * `contiguous`: 32 keys of 128 bytes are a page; one key in eight is scored, and one query in eight votes. It chooses twice as
 * many keys, in coarser blocks. Over a short context it is no faster than `paper`.
 */
const PRESETS: { readonly [preset in Options['preset']]: Partial<Options> } = {
  paper: {},
  contiguous: { block_k: 32, stride_k: 8, stride_q: 8, k: 1024 },
}

/** Query blocks of a prompt computed together, by the scratch memory they take. */
const GROUP_BYTES = 32 * 2 ** 20
/** Graph nodes of a group, with twenty rounds of search. */
const NODES = 800

export const hip: ReadMethod<typeof options> = {
  name: 'hip',
  axis: 'read',
  summary: 'Searches a tree of key blocks for those that score high; reads these, the sinks and a recent window.',
  source: 'HiP, arXiv 2406.09827',
  cost: '2·(k + window)·d·e bytes per list, layer and token, and k·⌈log2(T/k)⌉·2·d·e every `refresh` tokens',
  options,
  exactFor: (nTokens) => ({ dense_layers: 0, k: nTokens, block_k: 4, window: 8, sink: 0 }),
  tightFor: () => ({ dense_layers: 0, k: 48, window: 24, sink: 4, block_q: 1, stride_q: 1, refresh: 4 }),
  refuses(_, given) {
    const { sink, k, stride_q, block_q, stride_k, block_k } = resolve(given)
    if (sink > k) return `sink ${sink} must not be more than k ${k}, which it is a part of`
    if (stride_q > block_q) return `stride_q ${stride_q} leaves no query of a block of ${block_q}`
    return stride_k > block_k ? `stride_k ${stride_k} leaves no key of a block of ${block_k}` : null
  },
  bind: (given, shape) => read(resolve(given), shape),
}

function resolve(given: Options): Options {
  const defaults = options.parse({})
  const isLeft = (key: string) => given[key as keyof Options] === defaults[key as keyof Options]
  return { ...given, ...Object.fromEntries(Object.entries(PRESETS[given.preset]).filter(([key]) => isLeft(key))) }
}

/** When the blocks in store were chosen: the first token they serve, the one that chose, and what the cache was then. */
interface Chosen {
  readonly first: number
  readonly at: number
  readonly nTruncated: number
}

function read(o: Options, { headDim: d, nHead: H, nHeadKv: G }: ModelShape): Read {
  const nLists = o.heads === 'query' ? H / G : 1
  const choice: Choice = {
    nSlots: Math.ceil(o.k / o.block_k),
    representative: o.representative,
    nSinkBlocks: Math.ceil(o.sink / o.block_k),
    nSampled: Math.floor(o.block_k / o.stride_k),
    blockK: o.block_k,
    strideK: o.stride_k,
    strideQ: o.stride_q,
    window: o.window,
    nLists,
  }
  const chosen = new WeakMap<SequenceCache, Chosen>()

  /** Tokens that share a window: a query block, or what is decoded with one choice. */
  const span = ({ rows }: SequenceCache, nTokens: number) => (nTokens > 1 ? o.block_q : rows.isIdentity ? o.refresh : 1)
  /** Rank where the first of the next queries' blocks begins. */
  const firstOf = (cache: SequenceCache, nTokens: number) => cache.rows.nRows - (cache.rows.nRows % span(cache, nTokens))
  const groupsOf = (cache: SequenceCache, nTokens: number): Group[] => {
    const first = firstOf(cache, nTokens)
    const size = span(cache, nTokens)
    const nBlocks = nTokens === 1 ? 1 : Math.ceil((cache.rows.nRows + nTokens - first) / size)
    const each = Math.ceil(nBlocks / Math.ceil(nBlocks / mostBlocks))
    return Array.from({ length: Math.ceil(nBlocks / each) }, (_, i) => {
      const n = Math.min(each, nBlocks - i * each)
      const last = first + (i * each + n - 1) * size
      return { from: i * each, nBlocks: n, nSearched: nSearched(choice, last) }
    })
  }
  const isDense = (cache: SequenceCache, nTokens: number) => groupsOf(cache, nTokens).at(-1)!.nSearched <= choice.nSlots
  const isDue = (cache: SequenceCache) => {
    const last = chosen.get(cache)
    const isFor = last?.first === firstOf(cache, 1) && last.nTruncated === cache.nTruncated && last.at < cache.rows.nRows
    return !isFor || !cache.rows.isIdentity
  }
  const bytesPerBlock =
    8 * d * G * nLists * (o.k + o.window + o.block_q) + 8 * H * (o.block_q / o.stride_q) * choice.nSlots * choice.nSampled
  const mostBlocks = Math.max(1, Math.floor(GROUP_BYTES / bytesPerBlock))

  function decode(step: Step, part: StepPart, needsProbabilities: boolean): ReadLayer {
    const { g } = step
    const { cache } = part
    const isSearch = isDue(cache)
    const first = () => firstOf(cache, 1)
    const filled = () => {
      if (isSearch) chosen.set(cache, { first: first(), at: cache.rows.nRows, nTruncated: cache.nTruncated })
    }
    const blocks = { nBlocks: 1, nQueries: 1, first, span: span(cache, 1), isIdentity: cache.rows.isIdentity, filled }
    const reader = new BlockReader(step, part, choice, blocks)
    return (kept) => {
      const order = reader.order(kept.layer.il)
      const stored = g.reshape(cache.layers[kept.layer.il]!.stores['list']!.tensor, choice.nSlots, nLists * G)
      const list = isSearch ? reader.search(kept, kept.q, order) : stored
      if (isSearch) g.expand(g.cpy(list, stored))
      return reader.attendOne(kept, list, order, needsProbabilities)
    }
  }

  function readPrompt(step: Step, part: StepPart): ReadLayer {
    const { g } = step
    const { cache, nTokens } = part
    const nBefore = cache.rows.nRows - firstOf(cache, nTokens)
    const groups = groupsOf(cache, nTokens)
    const nQueries = o.block_q * groups.reduce((sum, { nBlocks }) => sum + nBlocks, 0)
    // Blocks of which the part has only some queries are filled up with its first and last.
    const fill = g.input(I32, [nQueries], (data) => {
      for (let i = 0; i < nQueries; i++) data[i] = Math.min(Math.max(0, i - nBefore), nTokens - 1)
    })
    const readers = groups.map(({ from, nBlocks }) => {
      const first = () => firstOf(cache, nTokens) + from * o.block_q
      const blocks = { nBlocks, nQueries: o.block_q, first, span: o.block_q, isIdentity: cache.rows.isIdentity }
      return new BlockReader(step, part, choice, blocks)
    })
    return (kept) => {
      const q = nQueries === nTokens ? kept.q : g.reshape(g.getRows(g.reshape(kept.q, d * H, nTokens), fill), d, H, nQueries)
      const order = readers[0]!.order(kept.layer.il)
      const outputs = readers.map((reader, i) => {
        const { from, nBlocks } = groups[i]!
        const ours = g.view(q, [d, H, nBlocks * o.block_q, 1], [q.nb[1], q.nb[2], q.nb[3]], from * o.block_q * q.nb[2])
        return reader.attend(kept, ours, reader.search(kept, ours, order), order)
      })
      const all = outputs.reduce((before, next) => g.concat(before, next, 1))
      return { o: g.view(all, [d * H, nTokens, 1, 1], [all.nb[1], all.nb[2], all.nb[3]], nBefore * all.nb[1]), p: null }
    }
  }

  return {
    readsPrompts: true,
    valueOrder: (il) => (il < o.dense_layers ? 'columns' : 'rows'),
    stores: (_, il): { readonly [name: string]: StoreLayout } =>
      il < o.dense_layers
        ? {}
        : { list: { width: choice.nSlots, nHead: nLists * G, type: F32, order: 'rows', fixed: 1, ofReader: true } },
    graphKey(cache, nTokens) {
      if (isDense(cache, nTokens)) return 'dense'
      const rounds = groupsOf(cache, nTokens).map((group) => nRounds(group.nSearched, choice.nSlots))
      const how = nTokens > 1 ? cache.rows.nRows - firstOf(cache, nTokens) : isDue(cache) ? 'search' : 'stored'
      return `${how}:${rounds.join()}:${cache.rows.isIdentity}`
    },
    nNodes: (nTokens) => NODES * (nTokens === 1 ? 1 : Math.ceil((nTokens / o.block_q + 2) / mostBlocks)),
    start(step, part, needsProbabilities) {
      const { cache, nTokens } = part
      const dense = readAll.start(step, part, needsProbabilities)
      if (isDense(cache, nTokens) || (nTokens > 1 && needsProbabilities)) return dense
      const sparse = nTokens === 1 ? decode(step, part, needsProbabilities) : readPrompt(step, part)
      return (kept, projected) => (kept.layer.il < o.dense_layers ? dense : sparse)(kept, projected)
    },
    /** A searched key counts half, for its value is not read; a prompt's search counts once for the queries of a block. */
    keysRead(il, { cache, nTokens }) {
      const { nRows } = cache.rows
      if (il < o.dense_layers || isDense(cache, nTokens)) return keysDense(nRows, nTokens)
      let nKeys = 0
      for (let query = nRows; query < nRows + nTokens; query++) {
        nKeys += nLists * keysAttended(choice, query - (query % span(cache, nTokens)), query)
      }
      if (nTokens === 1 && !isDue(cache)) return nKeys
      return groupsOf(cache, nTokens).reduce((sum, { nBlocks, nSearched }) => {
        return sum + (nLists * nBlocks * keysSearched(choice, nRounds(nSearched, choice.nSlots))) / 2
      }, nKeys)
    },
  }
}

/** Query blocks computed together. */
interface Group {
  /** Number of its first block in the part. */
  readonly from: number
  readonly nBlocks: number
  /** Blocks that its last one searches. */
  readonly nSearched: number
}
