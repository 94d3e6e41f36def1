/**
 * What HiP reads in a layer: per query block the chosen blocks of keys, and a window that begins where the searched keys end and
 * reaches to the query. The two do not overlap, so every key is read at most once and every window key exactly once.
 *
 * Keys are counted by rank (choice.ts). A list of chosen blocks belongs to a query block and a head; there are nL lists per KV head
 * (nBlocks, times g if every query head has its own), in the order (query block, query head, KV head); L = nL · G.
 */
import type { Graph } from '../../../ggml/graph.ts'
import { elementBytes, type Tensor } from '../../../ggml/tensor.ts'
import { F32, I32 } from '../../../ggml/types.ts'
import type { Chunk } from '../../chunk.ts'
import { softmax } from '../../kernels/softmax.ts'
import type { AttentionLayer, KvView, ReadResult } from '../../method.ts'
import type { BlockInputs } from './block-inputs.ts'
import { nListsOf } from './choice.ts'
import { expand, searchTree, toIndex } from './tree-search.ts'

/** Row numbers of all ranks in a layer, where they differ: i32[nKv, G]. */
export function rowsByRank(chunk: Chunk, { il, kvSource }: AttentionLayer): Tensor {
  const { nKv, nTokens } = chunk
  return chunk.once(`rows by rank:${kvSource}`, () =>
    chunk.input(I32, [nKv, chunk.layer(il).v.layout.nHead], (data, { layers }) => {
      for (const [head, map] of layers[il]!.rows.entries()) {
        for (let rank = 0; rank < nKv; rank++) {
          const ahead = Math.min(rank - map.nRows, nTokens - 1)
          data[head * nKv + rank] = ahead < 0 ? map.row(rank) : map.nextRow(ahead)
        }
      }
    }),
  )
}

export class BlockReader {
  readonly #g: Graph
  readonly #view: KvView
  readonly #inputs: BlockInputs
  /** {@link rowsByRank}, or null where row i is the row of rank i. */
  readonly #order: Tensor | null

  constructor(view: KvView, inputs: BlockInputs, order: Tensor | null) {
    this.#g = inputs.chunk.g
    this.#view = view
    this.#inputs = inputs
    this.#order = order
  }

  /** nL */
  get #nLists(): number {
    return this.#inputs.blocks.nBlocks * nListsOf(this.#inputs.choice, this.#view.layer)
  }

  /** The chosen blocks for queries f32[dK, H, nBlocks · nQueries]: f32[nSlots, L], ascending. */
  search(q: Tensor): Tensor {
    const { choice, blocks, starts, lengths } = this.#inputs
    return searchTree(this.#g, choice, {
      q: this.#voters(q),
      starts: this.#perList(starts),
      lengths: this.#perList(lengths),
      nRounds: blocks.nRounds,
      keysOf: (some) => this.#sampledKeys(some),
    })
  }

  /** Attention of queries f32[dK, H, nBlocks · nQueries] over the selected blocks f32[nSlots, L] and the window: f32[dV · H, …]. */
  attend(q: Tensor, selected: Tensor): Tensor {
    const g = this.#g
    const { layer } = this.#view
    const { nBlocks, nQueries } = this.#inputs.blocks
    const { k, v } = this.#gather(selected)
    // One slice of flash attention per query block; for KV heads' lists the query heads of a group share keys.
    const perBlock = (x: Tensor) => {
      const [d, m, nL, G] = x.ne
      return g.permute(g.reshape(x, d, m, nBlocks, (nL * G) / nBlocks), 0, 1, 3, 2)
    }
    const queries = g.permute(g.reshape(q, layer.dK, layer.nHead, nQueries, nBlocks), 0, 2, 1, 3)
    const o = g.flashAttnExt(queries, perBlock(k), perBlock(v), this.#inputs.mask(layer.visible), layer)
    return g.reshape(o, layer.dV * layer.nHead, nQueries * nBlocks)
  }

  /** The same for a single query, with its probabilities over all rows if they are wanted. */
  attendOne(selected: Tensor, wantsProbs: boolean): ReadResult {
    const { q, layer } = this.#view
    if (!wantsProbs) return { o: this.attend(q, selected), p: null }
    const g = this.#g
    const { nHead: H, nHeadKv: G } = layer
    const { k, v, rows } = this.#gather(selected)
    const [d, m, nL] = k.ne
    const R = H / G / nL
    const scores = g.reshape(g.mulMat(k, g.reshape(q, d, R, nL, G)), m, H / G, G)
    const all = softmax(g, layer, scores, { mask: this.#inputs.mask(layer.visible), n: 1 })
    const p = g.permute(g.reshape(all, m, R, nL, G), 1, 0, 2, 3)
    const o = g.reshape(g.outProd(g.cast(v, F32), p), layer.dV * H)
    return { o, p: { values: this.#scatter(p, rows), index: null } }
  }

  /** Keys and values of the selected blocks and the window, `[d, m, nL, G]` as they are stored, and the rows they came from, i32[m, nL, G]. */
  #gather(selected: Tensor): { k: Tensor; v: Tensor; rows: Tensor } {
    const g = this.#g
    const { k, v, nKv, from, layer } = this.#view
    const { choice, offsets, window } = this.#inputs
    const ranks = g.concat(expand(g, selected, choice.blockK, offsets), this.#perList(window), 0)
    const rows = this.#rows(ranks)
    const [m, nL, G] = [ranks.ne[0], this.#nLists, layer.nHeadKv]
    const take = (x: Tensor) => g.reshape(g.getRowsAsStored(x, rows), x.ne[0], m, nL, G)
    return { k: take(k), v: take(v.rows(g, nKv, from)), rows: g.reshape(rows, m, nL, G) }
  }

  /** Probabilities f32[R, m, nL, G] at `rows` as f32[nKv, g, G] over all rows; masked keys go to a row that is left out. */
  #scatter(p: Tensor, rows: Tensor): Tensor {
    const g = this.#g
    const { nKv } = this.#view
    const [R, m, nL, G] = p.ne
    const { factor, row } = this.#inputs.aside
    const index = toIndex(g, g.add(g.mul(g.cast(rows, F32), factor), row), m, nL, G)
    const none = g.once('nothing', () => g.input(F32, [1], (data) => data.fill(0)))
    const all = g.setRows(g.repeat(none, R, nKv + 1, nL, G), g.cont(p), index)
    const kept = g.view(all, [R, nKv, nL, G], [all.nb[1], all.nb[2], all.nb[3]])
    return g.reshape(g.cont(g.permute(kept, 1, 0, 2, 3)), nKv, R * nL, G)
  }

  /** Rows of ranks f32[m, L]: i32[m · nL, G]. */
  #rows(ranks: Tensor): Tensor {
    const g = this.#g
    const ne = [ranks.ne[0] * this.#nLists, this.#view.layer.nHeadKv] as const
    const index = toIndex(g, ranks, ...ne)
    const order = this.#order
    return order === null ? index : g.reshape(g.getRows(g.reshape(order, 1, ...order.ne.slice(0, 2)), index), ...ne)
  }

  /** Keys of blocks f32[n, L] that are scored, as they are stored: `[dK, n · nSampled, nL, G]`. */
  #sampledKeys(some: Tensor): Tensor {
    const g = this.#g
    const { k, nKv, layer } = this.#view
    const { blockK, nSampled } = this.#inputs.choice
    const [d, G] = [layer.dK, layer.nHeadKv]
    const ne = [d, some.ne[0] * nSampled, this.#nLists, G] as const
    if (this.#order === null && nSampled === blockK && k.nb[1] === elementBytes(k.type) * d) {
      // Whole blocks lie together, and are read as one long row each.
      const whole = g.view(k, [d * blockK, Math.floor(nKv / blockK), G, 1], [k.nb[1] * blockK, k.nb[2], k.nb[3]])
      return g.reshape(g.getRowsAsStored(whole, this.#rows(some)), ...ne)
    }
    return g.reshape(g.getRowsAsStored(k, this.#rows(expand(g, some, blockK, this.#inputs.samples))), ...ne)
  }

  /** f32[n, nBlocks], the same for all heads: f32[n, L]. */
  #perList(x: Tensor): Tensor {
    const g = this.#g
    const [n, nBlocks] = x.ne
    const L = this.#nLists * this.#view.layer.nHeadKv
    return L === nBlocks ? x : g.reshape(g.repeat(x, n, nBlocks, L / nBlocks), n, L)
  }

  /** Of queries f32[dK, H, nBlocks · nQueries], those that vote: f32[dK, R, nL, G]. */
  #voters(q: Tensor): Tensor {
    const g = this.#g
    const { dK: d, nHead: H, nHeadKv: G } = this.#view.layer
    const { blocks, choice } = this.#inputs
    const { nBlocks, nQueries } = blocks
    const strideQ = Math.min(choice.strideQ, nQueries)
    const R = Math.floor(nQueries / strideQ)
    const width = (d * H) / G
    const all = g.reshape(q, width, G, nQueries, nBlocks)
    const sampled = g.view(all, [width, G, R, nBlocks], [all.nb[1], all.nb[2] * strideQ, all.nb[3]], all.nb[2] * (strideQ - 1))
    const byHead = g.cont(g.permute(sampled, 0, 3, 1, 2)) // [d · g, R, nBlocks, G]
    if (!choice.isPerQueryHead) return g.reshape(byHead, d, (R * H) / G, nBlocks, G)
    const split = g.reshape(byHead, d, H / G, R * nBlocks, G)
    return g.reshape(g.cont(g.permute(split, 0, 2, 1, 3)), d, R, (nBlocks * H) / G, G)
  }
}
