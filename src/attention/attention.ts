/** A setting at work: the answers of the axes put together to the attention of one sequence. */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { SequenceCache } from '../kv/cache.ts'
import { type CacheLayout, roundUp, TILE } from '../kv/layout.ts'
import { linear } from '../nn/linear.ts'
import { keepAll, readAll } from './dense.ts'
import type { AttendLayer, AttentionLayer, Cycle, Keep, OwnLayer, Read, Share, Step, StepPart } from './method.ts'
import { groupHeads, join, scoresOf, withHeadsOf } from './pieces.ts'
import { columnsOf, projections } from './projected.ts'

/** ggml type ids of cached keys and values. */
export interface CacheTypes {
  readonly k: number
  readonly v: number
}

/** Rows that a read is rounded up to; recording a graph again costs a tenth of a short step. */
const READ_STEP = 256
const SHORT_STEP = 64
const SHORT_ROWS = 512

/** Normed residual f32[nEmbd, nTokens] → what is added to the residual, of the same shape; null if nothing is. */
export type Attend = (layer: AttentionLayer, x: Tensor) => Tensor | null

/** The empty answer of the share axis: every layer attends by itself. */
const shareNothing: Share = {
  start:
    (_, __, { attend }) =>
    (layer, projected) =>
      attend(layer, projected).o,
}

export class Attention {
  /** The setting as it is written, with the options that are not the defaults. */
  readonly spec: string
  readonly #share: Share
  readonly #keep: Keep
  readonly #read: Read

  constructor(
    spec: string,
    axes: { readonly share?: Share | undefined; readonly keep?: Keep | undefined; readonly read?: Read | undefined },
  ) {
    const { share = shareNothing, keep = keepAll, read = readAll } = axes
    this.spec = spec
    this.#share = share
    this.#keep = keep
    this.#read = read
  }

  /** Tokens that a sequence may have in a context of `nCtx`; Infinity if it can go on for ever: what it keeps fits and does not grow. */
  mostSeen(nCtx: number): number {
    return this.#keep.isEndless && this.#keep.nRows(Infinity) <= nCtx ? Infinity : nCtx
  }

  /** True if `cache` can be cut back to `nTokens`: none is lost, and none was counted that would have to be uncounted. */
  canTruncate(cache: SequenceCache, nTokens: number): boolean {
    return !this.#keep.needsProbabilities && cache.isWhole && this.#share.canTruncate?.(cache, nTokens) !== false
  }

  /** Rows that a sequence of up to `nCtx` tokens needs at once. */
  nRows(nCtx: number): number {
    return this.#keep.nRows(nCtx)
  }

  layout(shape: ModelShape, types: CacheTypes): CacheLayout {
    const { nLayer, nHeadKv: nHead, headDim: width } = shape
    const layer = (il: number) => ({
      k: { width, nHead, type: types.k, order: 'rows' as const },
      v: { width, nHead, type: types.v, order: this.#read.valueOrder(il) },
      ...this.#keep.stores?.(shape),
      ...this.#read.stores?.(shape, il, { type: types.k, positions: this.#keep.positions }),
    })
    const layers = Array.from({ length: nLayer }, (_, il) => this.#share.stores?.(il, layer(il)) ?? layer(il))
    const reads = this.#share.reads && Array.from({ length: nLayer }, (_, il) => this.#share.reads!(il))
    return reads ? { layers, reads } : { layers }
  }

  /** Tokens that the next part may bring at most. */
  mostTokens(cache: SequenceCache): number {
    return Math.min(this.#keep.mostTokens?.(cache) ?? Infinity, this.#share.mostTokens?.(cache) ?? Infinity)
  }

  /** Rows that a read covers with `nTokens` more: rounded up, so that a decode graph serves many steps. */
  nRead({ rows }: SequenceCache, nTokens: number): number {
    const nRows = Math.max(rows.nHigh, rows.nRows + nTokens)
    if (this.#read.readsTiles?.(nRows)) return roundUp(nRows, TILE)
    return roundUp(nRows, nRows <= SHORT_ROWS ? SHORT_STEP : READ_STEP)
  }

  /** Parts with equal keys can be computed by the same graph. */
  graphKey(cache: SequenceCache, nTokens: number): string {
    const keys = [this.#share, this.#keep, this.#read].map((axis) => axis.graphKey?.(cache, nTokens) ?? '')
    return [cache.id, nTokens, this.nRead(cache, nTokens), ...keys].join(':')
  }

  /** Graph nodes of a part in each layer, beyond those that every method needs. */
  nNodes(nTokens: number): number {
    const axis = nTokens > 1 && this.#keep.readsPrompts ? this.#keep : this.#reader(nTokens)
    return (axis.nNodes?.(nTokens) ?? 0) + (this.#share.nNodes?.(nTokens) ?? 0)
  }

  /** Records one part; the result is called for each layer with what was projected from the part's tokens. */
  start(step: Step, part: StepPart): AttendLayer {
    return this.#share.start(step, part, this.#startOwn(step, part))
  }

  /** Groups of layers that a part of `nTokens` runs several times. */
  cycles(nTokens: number): readonly Cycle[] {
    return this.#share.cycles?.(nTokens) ?? []
  }

  #startOwn(step: Step, part: StepPart): OwnLayer {
    const keep = this.#keep.start(step, part)
    const { needsProbabilities, positions } = this.#keep
    const reads = part.nTokens > 1 ? keep.read : undefined
    const reader = this.#reader(part.nTokens)
    const isAsked = (il: number) => this.#share.needsProbabilities?.(il) === true
    const ordinary = reader.start(step, part, needsProbabilities)
    const openly = readAll.start(step, part, true)
    const isStored = (il: number) => reads !== undefined || reader !== this.#read || isAsked(il)
    const stored = isStored(0) || this.#share.needsProbabilities ? this.#read.stored?.(step, part) : undefined
    let strict: OwnLayer | undefined
    const withHeads = new Map<number, OwnLayer>()
    const own: OwnLayer = {
      write: keep.write,
      kept: keep.kept,
      scores: (kept, projected) => keep.scores?.(kept, projected) ?? scoresOf(step, kept.k, groupHeads(step, kept.q)),
      read(kept, projected) {
        const { il } = kept.layer
        const read = isAsked(il) ? openly : ordinary
        const found = reads ? reads(kept, projected, isAsked(il)) : read(kept, projected)
        if (found.p) keep.observe?.(il, found.p)
        return found
      },
      store(layer, projected) {
        keep.write(layer, { k: positions === 'absolute' ? projected.rotated.k : projected.k, v: projected.v })
      },
      attend(layer, projected) {
        own.store(layer, projected)
        const kept = keep.kept(layer, projected)
        if (isStored(layer.il)) stored?.(kept, projected)
        return own.read(kept, projected)
      },
      strict: () => (strict ??= this.#startOwn(step, { ...part, isStrict: true })),
      readsAll: reads === undefined && reader === readAll && !needsProbabilities,
      withHeads: (nHeadKv) => {
        const made = withHeads.get(nHeadKv) ?? this.#startOwn(withHeadsOf(step, nHeadKv), part)
        withHeads.set(nHeadKv, made)
        return made
      },
    }
    return own
  }

  /** Keys read by the next `nTokens` queries, summed over layers and KV heads. */
  keysRead(cache: SequenceCache, nTokens: number): number {
    const part = { cache, nTokens, nRead: this.nRead(cache, nTokens) }
    const ofLayer = (il: number) => {
      const read = this.#share.needsProbabilities?.(il) ? readAll : this.#reader(nTokens)
      return read.keysRead(il, part) * (this.#share.keyShare?.(il, cache, nTokens) ?? 1)
    }
    return cache.layers.reduce((sum, { rows }, il) => sum + (rows.length > 0 ? rows.length * ofLayer(il) : 0), 0)
  }

  /** After a step, with its tokens appended. */
  settle(cache: SequenceCache, endsPrompt: boolean): void {
    this.#keep.settle?.(cache, endsPrompt)
    this.#share.settle?.(cache, endsPrompt)
  }

  #reader(nTokens: number): Read {
    return nTokens > 1 && (this.#keep.readsPrompts || !this.#read.readsPrompts) ? readAll : this.#read
  }
}

/** Without any method. */
export const DENSE_ATTENTION: Attention = new Attention('dense', {})

/** Groups of layers that a step runs several times: as often as the part that needs it most. */
export function cyclesOf(parts: readonly { readonly attention: Attention; readonly nTokens: number }[]): Cycle[] {
  const cycles = new Map<string, Cycle>()
  for (const cycle of parts.flatMap(({ attention, nTokens }) => attention.cycles(nTokens))) {
    const key = `${cycle.first}-${cycle.last}`
    if (cycle.passes > (cycles.get(key)?.passes ?? 0)) cycles.set(key, cycle)
  }
  return [...cycles.values()]
}

/** Attention of a whole step: what all parts share is computed once, the rest part by part. */
export function startStep(step: Step, attentions: readonly Attention[]): Attend {
  const parts = step.parts.map((part, i) => attentions[i]!.start(step, part))
  return (layer, x) => {
    const all = projections(step, layer, x)
    const outputs = step.parts.map((part, i) => parts[i]!(layer, columnsOf(step, part, all)))
    return output(step, layer, outputs)
  }
}

/** Outputs of the parts f32[d · H, n] → what is added to the residual; nothing is added to that of a part without one. */
function output(step: Step, layer: AttentionLayer, outputs: readonly (Tensor | null)[]): Tensor | null {
  const { g, shape } = step
  const some = outputs.filter((o) => o !== null)
  if (some.length === 0) return null
  const y = linear(g, layer.output, join(step, some))
  if (some.length === outputs.length) return y
  let first = 0
  const columns = outputs.map((o, i) => {
    const n = step.parts[i]!.nTokens
    if (o === null) return g.input(F32, [shape.nEmbd, n], (data) => data.fill(0))
    first += n
    return g.view(y, [shape.nEmbd, n, 1, 1], [y.nb[1], y.nb[2], y.nb[3]], (first - n) * y.nb[1])
  })
  return join(step, columns)
}
