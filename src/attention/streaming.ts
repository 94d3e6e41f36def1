/**
 * StreamingLLM: models park surplus attention on the first tokens, so these few "sinks" and a recent window suffice to go on
 * for ever. What leaves the window is lost; positions never exceed the cache, so the context trained for is no limit.
 *
 * Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453), sections 3.2 and 4.1; defaults of
 * its demo. Keys are stored before rotation. A query sees the sinks, the window of rows before it, and itself, and all of
 * them stand at their places in the cache: 0 … sink + window, the query last.
 *
 * Where we differ: the official code reads a prompt in one dense pass and evicts afterwards. Here every query of a prompt
 * sees what it would have seen token by token, so chunks do not matter, and memory stays bounded while it is read.
 *
 * Cost per token and layer: 2·G·(sink + window)·d·e bytes read, the rotation of as many keys, 4·H·(sink + window)·d FLOPs.
 */
import { z } from 'zod'
import { F16, F32, I32 } from '../ggml/types.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Keep, KeepMethod, Kept, Step, StepPart } from './method.ts'
import { groupHeads, rotate, softmax, ungroupHeads, weighStored, writer } from './pieces.ts'

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

/** Tokens of a prompt computed together: their rows come on top of what is kept. */
const CHUNK = 256
const F16_MINUS_INFINITY = 0xfc00

export const streaming: KeepMethod<typeof options> = {
  name: 'streaming',
  axis: 'keep',
  summary: 'Keeps the first tokens and the most recent ones; the middle is lost. Endless text at constant memory.',
  source: 'StreamingLLM, arXiv 2309.17453',
  cost: '2·G·(sink + window)·d·e bytes per layer and token',
  options,
  exactFor: (nTokens) => ({ window: nTokens }),
  tightFor: (nTokens) => ({ sink: 3, window: Math.ceil(nTokens / 5) }),
  sameRows: true,
  bind: ({ sink, window }) => keep(sink, window),
}

function keep(sink: number, window: number): Keep {
  const nKept = sink + window
  /** Tokens that had left the window when the query at `position` came. */
  const nDropped = (position: number) => Math.max(0, position - nKept)
  return {
    positions: 'cache',
    needsProbabilities: false,
    readsPrompts: true,
    isEndless: true,
    nRows: (nCtx) => Math.min(nCtx, nKept + CHUNK),
    mostTokens: () => CHUNK,

    start(step, part) {
      const { g } = step
      const { cache, nRead, nTokens } = part
      // Rows and queries stand where the first query of the part finds them. Distances within the window come out right for
      // all queries; those to the sinks shrink by one for every token dropped since, so sinks get queries of their own.
      const first = () => nDropped(cache.nTokens)
      const rowPlaces = g.input(I32, [nRead], (data) => {
        for (const [row, position] of positionsOf(part).entries()) {
          data[row] = position < sink ? Math.max(0, position) : position - first()
        }
      })
      const places = (dropped: (position: number) => number) =>
        g.input(I32, [nTokens], (data) => {
          for (let i = 0; i < nTokens; i++) data[i] = cache.nTokens + i - dropped(cache.nTokens + i)
        })
      const queryPlaces = places(first)
      const sinkPlaces = places(nDropped)
      const mask = g.input(F16, [nRead, nTokens], (data) => {
        const positions = positionsOf(part)
        for (let i = 0; i < nTokens; i++) {
          const query = cache.nTokens + i
          const last = part.isStrict && query > 0 ? query - 1 : query
          const oldest = sink + nDropped(query)
          for (let row = 0; row < nRead; row++) {
            const position = positions[row]!
            const isSeen = position >= 0 && position <= last && (position < sink || position >= oldest)
            data[i * nRead + row] = isSeen ? 0 : F16_MINUS_INFINITY
          }
        }
      })
      return {
        write: writer(step, part, false),
        kept(layer, { q }) {
          const stored = cache.layers[layer.il]!
          const rows = g.cast(g.permute(stored.k.rows(g, nRead), 0, 2, 1, 3), F32) // [d, G, nRead]
          const turned = g.permute(rotate(step, layer, rows, rowPlaces), 0, 2, 1, 3)
          return { layer, q: rotate(step, layer, q, queryPlaces), k: turned, v: stored.v, mask, nRead }
        },
        read(kept, { q }) {
          const scores = g.mulMat(kept.k, groupHeads(step, kept.q)) // [nRead, n · g, G]
          const all = sink === 0 ? scores : withSinks(step, scores, { kept, sink, q: rotate(step, kept.layer, q, sinkPlaces) })
          const p = softmax(step, all, kept.mask, nTokens)
          return { o: ungroupHeads(step, weighStored(step, p, kept.v), nTokens), p: { values: p, index: null } }
        },
      }
    },

    settle(cache) {
      const { nRows } = cache.rows
      if (nRows <= nKept) return
      for (const [il, { rows }] of cache.owned) {
        if (nRows === nKept + 1) for (const map of rows) map.drop(sink)
        else
          cache.keep(
            il,
            rows.map(() => ranksKept(nRows, sink, nRows - nKept)),
          )
      }
    },
  }
}

interface Sinks {
  readonly kept: Kept
  readonly sink: number
  /** f32[d, H, n], rotated for the distance to the sinks. */
  readonly q: Tensor
}

/** The scores with those of the sinks, which are the first rows, computed anew. */
function withSinks(step: Step, scores: Tensor, { kept, sink, q }: Sinks): Tensor {
  const { g } = step
  const { k, nRead } = kept
  const sinks = g.mulMat(g.view(k, [k.ne[0], sink, k.ne[2], 1], [k.nb[1], k.nb[2], k.nb[3]]), groupHeads(step, q))
  const [, rows, G] = scores.ne
  const others = g.view(scores, [nRead - sink, rows, G, 1], [scores.nb[1], scores.nb[2], scores.nb[3]], sink * scores.nb[0])
  return g.concat(sinks, g.cont(others), 0)
}

/** The position of every row once the part's tokens are stored; -1 for rows that hold none. */
function positionsOf({ cache: { rows }, nRead, nTokens }: StepPart): Int32Array {
  const positions = Int32Array.from({ length: nRead }, (_, row) => (row < rows.nHigh ? rows.position(row) : -1))
  for (let i = 0; i < nTokens; i++) positions[rows.nextRow(i)] = rows.nSeen + i
  return positions
}

/** Of `nRows` rows by position: the sinks, and all but the oldest `nDropped` of the rest. */
function ranksKept(nRows: number, sink: number, nDropped: number): number[] {
  return Array.from({ length: nRows - nDropped }, (_, rank) => (rank < sink ? rank : rank + nDropped))
}
