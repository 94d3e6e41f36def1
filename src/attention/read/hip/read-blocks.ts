/** HiP at work: when blocks are chosen, for which queries together, and what is read. */
import type { LayerShape } from '../../../core/shape.ts'
import type { Tensor } from '../../../ggml/tensor.ts'
import { F32, I32 } from '../../../ggml/types.ts'
import { type KvCache, storeOf } from '../../../kv/cache.ts'
import type { Chunk } from '../../chunk.ts'
import { concatAll } from '../../kernels/heads.ts'
import { readDensely } from '../../kernels/read-densely.ts'
import { keysDense, type KvView, type Read, type ReadResult } from '../../method.ts'
import { BlockInputs } from './block-inputs.ts'
import { BlockReader, rowsByRank } from './block-reader.ts'
import { type Choice, keysAttended, nListsOf, nSearched } from './choice.ts'
import { keysSearched, nRounds } from './tree-search.ts'

export interface When {
  /** First layers that read everything. */
  readonly nDense: number
  /** Decoded tokens between two searches. */
  readonly refresh: number
}

/** Null if all that could be chosen is all there is. */
type Facts = null | Decode | Prefill

type Decode = {
  /** Row i is the row of rank i. */
  readonly isIdentity: boolean
  /** Blocks are searched for, and not those in store. */
  readonly isDue: boolean
  readonly nRounds: number
}

type Prefill = {
  readonly isIdentity: boolean
  /** Tokens before the chunk in the query block that it begins in. */
  readonly nBefore: number
  readonly groups: readonly Group[]
}

/** Query blocks of a chunk computed together: from its block `from` on, the last one searched in so many rounds. */
type Group = { readonly from: number; readonly nBlocks: number; readonly nRounds: number }

/** The rank from which on the blocks in store serve. */
type Memo = { readonly first: number }

/** Query blocks of a prompt computed together, by the scratch memory they take. */
const GROUP_BYTES = 32 * 2 ** 20

export function readBlocks(choice: Choice, { nDense, refresh }: When, layers: readonly LayerShape[]): Read<Facts> {
  const mostBlocks = Math.max(1, Math.floor(GROUP_BYTES / Math.max(...layers.map((layer) => bytesPerBlock(choice, layer)))))
  /** Tokens that share a window: a query block, or what is decoded with one choice. */
  const spanOf = (isIdentity: boolean, nTokens: number) => (nTokens > 1 ? choice.blockQ : isIdentity ? refresh : 1)
  const span = ({ rows }: KvCache, nTokens: number) => spanOf(rows.isIdentity, nTokens)
  /** Rank where the first of the next queries' blocks begins. */
  const firstOf = (cache: KvCache, nTokens: number) => cache.rows.nRows - (cache.rows.nRows % span(cache, nTokens))
  const roundsFor = (first: number) => nRounds(nSearched(choice, first), choice.nSlots)
  const hasChoice = (first: number) => nSearched(choice, first) > choice.nSlots

  function decodeFacts(cache: KvCache): Decode | null {
    const first = firstOf(cache, 1)
    const { isIdentity } = cache.rows
    const memo = cache.memo.read as Memo | undefined
    return hasChoice(first) ? { isIdentity, isDue: !isIdentity || memo?.first !== first, nRounds: roundsFor(first) } : null
  }

  function prefillFacts(cache: KvCache, nTokens: number): Prefill | null {
    const { nRows, isIdentity } = cache.rows
    const first = firstOf(cache, nTokens)
    const nBlocks = Math.ceil((nRows + nTokens - first) / choice.blockQ)
    const lastOf = (from: number, n: number) => first + (from + n - 1) * choice.blockQ
    if (!hasChoice(lastOf(0, nBlocks))) return null
    const each = Math.ceil(nBlocks / Math.ceil(nBlocks / mostBlocks))
    const groups = Array.from({ length: Math.ceil(nBlocks / each) }, (_, i): Group => {
      const from = i * each
      const n = Math.min(each, nBlocks - from)
      return { from, nBlocks: n, nRounds: roundsFor(lastOf(from, n)) }
    })
    return { isIdentity, nBefore: nRows - first, groups }
  }

  function decode(chunk: Chunk, { isIdentity, isDue, nRounds }: Decode, wantsProbs: boolean): (view: KvView) => ReadResult {
    const { g } = chunk
    const first = (cache: KvCache) => firstOf(cache, 1)
    const inputs = new BlockInputs(chunk, choice, { nBlocks: 1, nQueries: 1, span: spanOf(isIdentity, 1), first, nRounds })
    return (view) => {
      const { tensor } = storeOf(chunk.layer(view.layer.il).stores, 'selected')
      const stored = g.reshape(tensor, choice.nSlots, tensor.ne[2])
      const reader = new BlockReader(view, inputs, isIdentity ? null : rowsByRank(chunk, view.layer))
      const selected = isDue ? reader.search(view.q) : stored
      // What is overwritten serves nobody any more: until a step has succeeded and was noted, each one searches (isDue).
      if (isDue) g.expand(g.cpy(selected, stored))
      return reader.attendOne(selected, wantsProbs)
    }
  }

  function prefill(chunk: Chunk, { isIdentity, nBefore, groups }: Prefill): (view: KvView) => ReadResult {
    const { g, nTokens } = chunk
    const { blockQ } = choice
    const nQueries = blockQ * groups.reduce((sum, { nBlocks }) => sum + nBlocks, 0)
    // Blocks of which the chunk has only some queries are filled up with its first and last.
    const fill = chunk.input(I32, [nQueries], (data) =>
      data.forEach((_, i) => (data[i] = Math.min(Math.max(0, i - nBefore), nTokens - 1))),
    )
    const inputs = groups.map(({ from, nBlocks, nRounds }) => {
      const first = (cache: KvCache) => firstOf(cache, nTokens) + from * blockQ
      return new BlockInputs(chunk, choice, { nBlocks, nQueries: blockQ, span: blockQ, first, nRounds })
    })
    const filled = (q: Tensor) => {
      const [d, H] = q.ne
      return nQueries === nTokens ? q : g.reshape(g.getRows(g.reshape(q, d * H, nTokens), fill), d, H, nQueries)
    }
    return (view) => {
      const q = filled(view.q)
      const order = isIdentity ? null : rowsByRank(chunk, view.layer)
      const outputs = inputs.map((ofGroup, i) => {
        const { from, nBlocks } = groups[i]!
        const ours = g.view(q, [q.ne[0], q.ne[1], nBlocks * blockQ, 1], [q.nb[1], q.nb[2], q.nb[3]], from * blockQ * q.nb[2])
        const reader = new BlockReader(view, ofGroup, order)
        return reader.attend(ours, reader.search(ours))
      })
      const all = concatAll(g, outputs, 1)
      return { o: g.view(all, [all.ne[0], nTokens, 1, 1], [all.nb[1], all.nb[2], all.nb[3]], nBefore * all.nb[1]), p: null }
    }
  }

  return {
    phases: 'both',
    stores(layer, own) {
      if (layer.il < nDense) return own
      const nHead = nListsOf(choice, layer) * layer.nHeadKv
      const selected = { width: choice.nSlots, nHead, type: F32, order: 'rows', fixed: 1, ofReader: true } as const
      return { ...own, v: { ...own['v']!, order: 'rows' }, selected }
    },
    facts: (cache, { nTokens }) => (nTokens === 1 ? decodeFacts(cache) : prefillFacts(cache, nTokens)),
    record(chunk, facts, wantsProbs) {
      const dense = (view: KvView) => readDensely(chunk.g, view, wantsProbs)
      if (facts === null || ('groups' in facts && wantsProbs)) return { attend: dense }
      const sparse = 'groups' in facts ? prefill(chunk, facts) : decode(chunk, facts, wantsProbs)
      return { attend: (view) => (view.layer.il < nDense ? dense : sparse)(view) }
    },

    commit(cache, facts) {
      if (facts === null || 'groups' in facts || !facts.isDue) return
      const query = cache.rows.nRows - 1
      const memo: Memo = { first: query - (query % spanOf(facts.isIdentity, 1)) }
      cache.memo.read = memo
    },
    /** The queries of a block choose together: what is left of a block is not what it would be by itself. */
    truncate(cache, nTokens) {
      delete cache.memo.read
      return nTokens % choice.blockQ === 0 || nSearched(choice, cache.nTokens - 1) <= choice.nSlots
    },

    /** A searched key counts half, for its value is not read; a prompt's search counts once for the queries of a block. */
    cost(layer, cache, { nTokens }, facts) {
      const { nRows } = cache.rows
      if (layer.il < nDense || facts === null) return keysDense(nRows, nTokens)
      const nLists = nListsOf(choice, layer)
      let nKeys = 0
      for (let query = nRows; query < nRows + nTokens; query++) {
        nKeys += nLists * keysAttended(choice, query - (query % span(cache, nTokens)), query)
      }
      const searches = 'groups' in facts ? facts.groups : facts.isDue ? [{ nBlocks: 1, nRounds: facts.nRounds }] : []
      for (const { nBlocks, nRounds } of searches) nKeys += (nLists * nBlocks * keysSearched(choice, nRounds)) / 2
      return nKeys
    },
  }
}

/** Keys and values of a query block as they are gathered, and products of those that vote with the keys of a round. */
function bytesPerBlock(choice: Choice, layer: LayerShape): number {
  const { nSlots, nSampled, blockK, blockQ, strideQ, window } = choice
  const { dK, dV, nHead, nHeadKv } = layer
  const gathered = 4 * (dK + dV) * nHeadKv * nListsOf(choice, layer) * (nSlots * blockK + window + blockQ)
  return gathered + 8 * nHead * (blockQ / strideQ) * nSlots * nSampled
}
