/**
 * StreamingLLM: models park surplus attention on the first tokens, so these few "sinks" and a recent window suffice to go on
 * for ever. What leaves the window is lost; positions never exceed the cache, so the context trained for is no limit.
 *
 * Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453), sections 3.2 and 4.1; defaults of
 * its demo. A query sees the sinks, the window of rows before it, and itself, and all of them stand at their places in the
 * cache: 0 … sink + window, the query last.
 *
 * RoPE only knows distances, and within the window those in the cache are those in the text. So its keys are stored rotated, as
 * in dense attention, and nothing is rotated when they are read. Sinks come nearer with every token that is dropped: they are
 * kept before rotation, and rotated for each step to where the query finds them. That no angle grows without end, positions
 * start again at 0 every {@link TURN} tokens; while a window spans two such turns, a copy of it is rotated.
 *
 * Where we differ: the official code reads a prompt in one dense pass and evicts afterwards. Here every query of a prompt
 * sees what it would have seen token by token, so chunks do not matter, and memory stays bounded while it is read. In a layer
 * with a window of its own a query sees what both leave, so there a sink is lost when it leaves the layer's window.
 *
 * Cost per token and layer: 2·G·(sink + window)·d·e bytes read, 4·H·(sink + window)·d FLOPs.
 */
import { z } from 'zod'
import type { Visibility } from '../../core/shape.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { F16, I32 } from '../../ggml/types.ts'
import type { RowMap } from '../../kv/rows.ts'
import type { Chunk, ChunkSize } from '../chunk.ts'
import { readDensely } from '../kernels/read-densely.ts'
import { groupHeads, ungroupHeads } from '../kernels/heads.ts'
import { MASKED, visiblePositions } from '../kernels/mask.ts'
import { qkScores } from '../kernels/scores.ts'
import { softmax } from '../kernels/softmax.ts'
import { applyValues } from '../kernels/values.ts'
import { writer } from '../kernels/write.ts'
import type { Keep, KeepMethod, KvView, Projected } from '../method.ts'
import { Sinks, sinksLayout } from './sinks.ts'

const options = z.object({
  sink: z.number().int().min(0).max(4096).default(4).describe('first tokens that always stay (tokens)'),
  window: z
    .number()
    .int()
    .min(1)
    .max(2 ** 20)
    .default(2000)
    .describe('most recent tokens that stay (tokens)'),
})

/** Tokens of a prompt computed together once something is dropped: their rows come on top of what is kept. */
const CHUNK = 256
/** Positions are rotated by up to so many tokens: within that, single precision tells neighbours apart. */
const TURN = 2 ** 16

export const streaming: KeepMethod<typeof options> = {
  name: 'streaming',
  axis: 'keep',
  summary: 'Keeps the first tokens and the most recent ones; the middle is lost. Endless text at constant memory.',
  source: 'StreamingLLM, arXiv 2309.17453',
  cost: '2·G·(sink + window)·d·e bytes per layer and token',
  options,
  sameRows: true,
  bind: ({ sink, window }) => keepStreaming(sink, window),
}

type Facts = {
  /** The last query does not see all that came before it. */
  readonly drops: boolean
  /** Queries see keys of another turn than the first query's. */
  readonly mixed: boolean
  /** Tokens of the chunk that become sinks. */
  readonly newSinks: number
}

export function keepStreaming(sink: number, window: number, turn = TURN): Keep<Facts> {
  const nKept = sink + window
  /** Tokens that had left the window when the query at `position` came. */
  const nDropped = (position: number) => Math.max(0, position - nKept)
  const turnOf = (position: number) => position - (position % turn)

  /** f16[nKv, n]: 0 where a query sees the key of a row. */
  const maskOf = (chunk: Chunk, visible: Visibility) =>
    chunk.once(`streaming:${JSON.stringify(visible)}`, () =>
      chunk.input(F16, [chunk.nKv, chunk.nTokens], (mask, { rows, nTokens: nBefore }) => {
        const positions = positionsOf(rows, chunk)
        for (let i = 0; i < chunk.nTokens; i++) {
          const [first, end] = visiblePositions(visible, nBefore + i)
          const oldest = sink + nDropped(nBefore + i)
          for (let row = 0; row < chunk.nKv; row++) {
            const position = positions[row]!
            const isSeen = position >= first && position < end && (position < sink || position >= oldest)
            mask[i * chunk.nKv + row] = isSeen ? 0 : MASKED
          }
        }
      }),
    )

  return {
    positions: 'cache',
    prefills: true,
    unbounded: true,
    capacity: (nCtx) => Math.min(nCtx, nKept + CHUNK),
    maxChunk: ({ nTokens }) => Math.max(CHUNK, nKept - nTokens),
    stores: (layer, own) => (sink === 0 ? own : { ...own, sinks: sinksLayout(layer, sink) }),
    facts({ nTokens: nBefore }, { nTokens }) {
      const last = nBefore + nTokens - 1
      return {
        drops: nDropped(last) > 0,
        mixed: turnOf(Math.max(sink, nBefore - window)) !== turnOf(last),
        newSinks: Math.max(0, Math.min(sink - nBefore, nTokens)),
      }
    },

    record(chunk, { drops, mixed, newSinks }) {
      const { g, nTokens, nKv } = chunk
      const write = writer(chunk, false)
      const sinks = sink === 0 ? null : new Sinks(chunk, sink)
      /** `of` the token's position and where the turn of the first query begins. */
      const eachToken = (of: (position: number, base: number) => number) =>
        chunk.input(I32, [nTokens], (data, { nTokens: nBefore }) =>
          data.forEach((_, i) => (data[i] = of(nBefore + i, turnOf(nBefore)))),
        )
      const keyPlaces = eachToken((position) => position % turn)
      const queryPlaces = eachToken((position, base) => position - base)
      // For all queries of a chunk at once the sinks cannot be near enough: there they get queries of their own.
      const sinkPlaces = eachToken((position) => position - nDropped(position))
      // How far each row's rotation is from that of the queries; sinks that are placed for this step stand right already.
      const rowTurns = chunk.input(I32, [nKv], (data, { rows, nTokens: nBefore }) => {
        for (const [row, position] of positionsOf(rows, chunk).entries()) {
          data[row] = position < 0 || (drops && position < sink) ? 0 : turnOf(position) - turnOf(nBefore)
        }
      })

      const scores = ({ layer, k, q: placed }: KvView, { q }: Projected): Tensor => {
        const inPlace = qkScores(g, layer, k, groupHeads(g, layer, placed)) // [nKv, n · g, G]
        return sinks && drops && nTokens > 1 ? sinks.score(inPlace, layer, layer.rotate(g, q, sinkPlaces)) : inPlace
      }

      return {
        scores,
        write(layer, { k, ...others }) {
          if (!k) return write(layer, others)
          write(layer, { ...others, k: layer.rotate(g, k, keyPlaces) })
          if (newSinks > 0) sinks!.keep(layer, k, newSinks)
        },
        view(layer, { q }) {
          const { k, v } = chunk.layer(layer.il)
          if (drops && nTokens === 1) sinks?.place(layer, ({ nTokens: query }) => nDropped(query) - turnOf(query))
          const rows = k.rows(g, nKv)
          const turned = mixed ? g.permute(layer.rotate(g, g.permute(rows, 0, 2, 1, 3), rowTurns), 0, 2, 1, 3) : rows
          return { layer, q: layer.rotate(g, q, queryPlaces), k: turned, v, mask: maskOf(chunk, layer.visible), from: 0, nKv }
        },
        prefill(view, projected, wantsProbs) {
          if (!drops) return readDensely(g, view, wantsProbs)
          const { layer, mask } = view
          const p = softmax(g, layer, scores(view, projected), { mask, n: nTokens })
          return { o: ungroupHeads(g, layer, applyValues(g, layer, p, view), nTokens), p: { values: p, index: null } }
        },
      }
    },

    commit(cache) {
      const { nRows } = cache.rows
      const nSurplus = nRows - nKept
      if (nSurplus <= 0) return
      if (nSurplus === 1) {
        for (const [, { rows }] of cache.owned) for (const map of rows) map.drop(sink)
        return
      }
      const ranks = Array.from({ length: nKept }, (_, rank) => (rank < sink ? rank : rank + nSurplus))
      for (const [il, { rows }] of cache.owned) cache.keep(il, Array(rows.length).fill(ranks))
    },
  }
}

/** The position of every row that is read, with the chunk's tokens in theirs; -1 for rows that hold none. */
function positionsOf(rows: RowMap, { nKv, nTokens }: ChunkSize): Int32Array {
  const positions = Int32Array.from({ length: nKv }, (_, row) => (row < rows.highWater ? rows.position(row) : -1))
  for (let i = 0; i < nTokens; i++) positions[rows.nextRow(i)] = rows.nSeen + i
  return positions
}
