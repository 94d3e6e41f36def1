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
 * sees what it would have seen token by token, so chunks do not matter, and memory stays bounded while it is read.
 *
 * Cost per token and layer: 2·G·(sink + window)·d·e bytes read, 4·H·(sink + window)·d FLOPs.
 */
import { z } from 'zod'
import { F16, F32, I32 } from '../ggml/types.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { StoreLayout } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import { readDensely } from './dense.ts'
import type { AttentionLayer, Keep, KeepMethod, Kept, Projected, Step, StepPart, WrittenLayer } from './method.ts'
import { groupHeads, rotate, scoresOf, softmax, ungroupHeads, weighStored, writer } from './pieces.ts'

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
  bind: ({ sink, window }) => keepStreaming(sink, window),
}

export function keepStreaming(sink: number, window: number, turn = TURN): Keep {
  const nKept = sink + window
  /** Tokens that had left the window when the query at `position` came. */
  const nDropped = (position: number) => Math.max(0, position - nKept)
  const turnOf = (position: number) => position - (position % turn)
  /** True if the part's queries see keys of another turn than the first query's. */
  const isMixed = ({ nTokens: n }: SequenceCache, nTokens: number) =>
    turnOf(Math.max(sink, n - window)) !== turnOf(n + nTokens - 1)
  const nNewSinks = ({ nTokens: n }: SequenceCache, nTokens: number) => Math.max(0, Math.min(sink - n, nTokens))
  /** True if the last query of a part still sees everything. */
  const isWhole = ({ nTokens: n }: SequenceCache, nTokens: number) => nDropped(n + nTokens - 1) === 0

  return {
    positions: 'cache',
    needsProbabilities: false,
    readsPrompts: true,
    isEndless: true,
    nRows: (nCtx) => Math.min(nCtx, nKept + CHUNK),
    mostTokens: ({ nTokens }) => Math.max(CHUNK, nKept - nTokens),
    stores: ({ headDim: width, nHeadKv: nHead }): { readonly [name: string]: StoreLayout } =>
      sink === 0 ? {} : { sinks: { width, nHead, type: F32, order: 'rows', fixed: sink } },
    graphKey: (cache, n) => `${isWhole(cache, n)}:${isMixed(cache, n)}:${nNewSinks(cache, n)}`,

    start(step, part) {
      const { g } = step
      const { cache, nRead, nTokens } = part
      const write = writer(step, part, false)
      const base = () => turnOf(cache.nTokens)
      const drops = !isWhole(cache, nTokens)
      const eachToken = (of: (position: number) => number) =>
        g.input(I32, [nTokens], (data) => data.forEach((_, i) => (data[i] = of(cache.nTokens + i))))
      const keyPlaces = eachToken((position) => position % turn)
      const queryPlaces = eachToken((position) => position - base())
      const sinks = new Sinks(step, part, { sink, nNew: nNewSinks(cache, nTokens) })
      // Sinks that are placed for this step stand right already.
      const turns = isMixed(cache, nTokens)
        ? rowTurns(step, part, (position) => (drops && position < sink ? 0 : turnOf(position) - base()))
        : null
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
      // For all queries of a part at once the sinks cannot be near enough: there they get queries of their own.
      const sinkPlaces = eachToken((position) => position - nDropped(position))

      const scores = (kept: Kept, { q }: Pick<Projected, 'q'>): Tensor => {
        const inPlace = scoresOf(step, kept.k, groupHeads(step, kept.q)) // [nRead, n · g, G]
        if (!drops || nTokens === 1 || sink === 0) return inPlace
        return sinks.score(inPlace, kept.layer, rotate(step, kept.layer, q, sinkPlaces))
      }

      return {
        scores,
        write(layer, { k, ...others }) {
          if (!k) return write(layer, others)
          write(layer, { ...others, k: rotate(step, layer, k, keyPlaces) })
          sinks.keep(layer, k)
        },
        kept(layer, { q }) {
          const { k, v } = cache.layers[layer.il]!
          if (drops && nTokens === 1) sinks.place(layer, () => nDropped(cache.nTokens) - base())
          const rows = k.rows(g, nRead)
          const turned = turns ? g.permute(rotate(step, layer, g.permute(rows, 0, 2, 1, 3), turns), 0, 2, 1, 3) : rows
          return { layer, q: rotate(step, layer, q, queryPlaces), k: turned, v, mask, nRead }
        },
        read(kept, { q }, needsProbabilities) {
          if (!drops) return readDensely(step, kept, needsProbabilities)
          const p = softmax(step, scores(kept, { q }), kept.mask, nTokens)
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

/** The first keys, before rotation: f32[d, sink, G] in each layer. */
class Sinks {
  readonly #step: Step
  readonly #part: StepPart
  readonly #sink: number
  readonly #nNew: number
  readonly #rows: Tensor
  readonly #placed = new Set<Store>()
  #newRows: Tensor | null = null
  #places: Tensor | null = null

  constructor(step: Step, part: StepPart, { sink, nNew }: { readonly sink: number; readonly nNew: number }) {
    this.#step = step
    this.#part = part
    this.#sink = sink
    this.#nNew = nNew
    this.#rows = step.g.input(I32, [Math.max(sink, 1)], (data) => data.forEach((_, i) => (data[i] = i)))
  }

  /** Remembers those among a part's keys f32[d, G, n]. */
  keep({ il }: WrittenLayer, k: Tensor): void {
    if (this.#nNew === 0) return
    const { g } = this.#step
    const { cache } = this.#part
    const some = g.view(k, [k.ne[0], k.ne[1], this.#nNew, 1], [k.nb[1], k.nb[2], k.nb[3]])
    this.#newRows ??= g.input(I32, [this.#nNew], (data) => data.forEach((_, i) => (data[i] = cache.nTokens + i)))
    g.expand(g.setRows(this.#stored(il), g.cont(g.permute(some, 0, 2, 1, 3)), this.#newRows))
  }

  /** Rotates them to `first`, `first` + 1, … and puts them into their rows of the cache, which are the first. */
  place(layer: AttentionLayer, first: () => number): void {
    const { k } = this.#part.cache.layers[layer.il]!
    if (this.#sink === 0 || this.#placed.has(k)) return // layers that read the same rows find them there
    this.#placed.add(k)
    const { g } = this.#step
    this.#places ??= g.input(I32, [this.#sink], (data) => data.forEach((_, i) => (data[i] = first() + i)))
    g.expand(g.setRows(k.tensor, g.cont(this.#rotated(layer, this.#places)), this.#rows))
  }

  /** Scores f32[m, n · g, G] with those of the sinks, which are the first rows, made anew for queries f32[d, H, n]. */
  score(scores: Tensor, layer: AttentionLayer, q: Tensor): Tensor {
    const { g } = this.#step
    const [m, rows, G] = scores.ne
    const own = g.mulMat(this.#rotated(layer, this.#rows), groupHeads(this.#step, q))
    const [, , head, all] = scores.nb
    const others = g.view(scores, [m - this.#sink, rows, G, 1], [scores.nb[1], head, all], this.#sink * scores.nb[0])
    return g.concat(own, g.cont(others), 0)
  }

  #rotated(layer: AttentionLayer, places: Tensor): Tensor {
    const { g } = this.#step
    return g.permute(rotate(this.#step, layer, g.permute(this.#stored(layer.il), 0, 2, 1, 3), places), 0, 2, 1, 3)
  }

  #stored(il: number): Tensor {
    return this.#part.cache.layers[il]!.stores['sinks']!.tensor
  }
}

/** How far each row's rotation is from that of the part's queries: i32[nRead]. */
function rowTurns({ g }: Step, part: StepPart, turnOf: (position: number) => number): Tensor {
  return g.input(I32, [part.nRead], (data) => {
    for (const [row, position] of positionsOf(part).entries()) data[row] = position < 0 ? 0 : turnOf(position)
  })
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
