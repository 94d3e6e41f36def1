/** A setting at work: the answers of the axes put together to the attention of one sequence. */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { SequenceCache } from '../kv/cache.ts'
import { type CacheLayout, roundUp, TILE } from '../kv/layout.ts'
import { linear } from '../nn/linear.ts'
import { keepAll, readAll } from './dense.ts'
import type { AttentionLayer, Keep, Projected, Read, Step, StepPart } from './method.ts'
import { join, project, rotate, slice } from './pieces.ts'

/** ggml type ids of cached keys and values. */
export interface CacheTypes {
  readonly k: number
  readonly v: number
}

/** Rows that a read is rounded up to; recording a graph again costs a tenth of a short step. */
const READ_STEP = 256
const SHORT_STEP = 64
const SHORT_ROWS = 512

/** Normed residual f32[nEmbd, nTokens] → what is added to the residual, of the same shape. */
export type Attend = (layer: AttentionLayer, x: Tensor) => Tensor

export class Attention {
  /** The setting as it is written, with the options that are not the defaults. */
  readonly spec: string
  readonly #keep: Keep
  readonly #read: Read

  constructor(spec: string, { keep = keepAll, read = readAll }: { readonly keep?: Keep; readonly read?: Read }) {
    this.spec = spec
    this.#keep = keep
    this.#read = read
  }

  /** Tokens that a sequence may have in a context of `nCtx`; Infinity if it can go on for ever: what it keeps fits and does not grow. */
  mostSeen(nCtx: number): number {
    return this.#keep.isEndless && this.#keep.nRows(Infinity) <= nCtx ? Infinity : nCtx
  }

  /** True if `cache` can be cut back to fewer tokens: none is lost, and none was counted that would have to be uncounted. */
  canTruncate(cache: SequenceCache): boolean {
    return !this.#keep.needsProbabilities && cache.isWhole
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
    return { layers: Array.from({ length: nLayer }, (_, il) => layer(il)) }
  }

  /** Tokens that the next part may bring at most. */
  mostTokens(cache: SequenceCache): number {
    return this.#keep.mostTokens?.(cache) ?? Infinity
  }

  /** Rows that a read covers with `nTokens` more: rounded up, so that a decode graph serves many steps. */
  nRead({ rows }: SequenceCache, nTokens: number): number {
    const nRows = Math.max(rows.nHigh, rows.nRows + nTokens)
    if (this.#read.readsTiles?.(nRows)) return roundUp(nRows, TILE)
    return roundUp(nRows, nRows <= SHORT_ROWS ? SHORT_STEP : READ_STEP)
  }

  /** Parts with equal keys can be computed by the same graph. */
  graphKey(cache: SequenceCache, nTokens: number): string {
    const keys = [this.#keep, this.#read].map((axis) => axis.graphKey?.(cache, nTokens) ?? '')
    return [cache.id, nTokens, this.nRead(cache, nTokens), ...keys].join(':')
  }

  /** Graph nodes of a part in each layer, beyond those that every method needs. */
  nNodes(nTokens: number): number {
    const axis = nTokens > 1 && this.#keep.readsPrompts ? this.#keep : this.#reader(nTokens)
    return axis.nNodes?.(nTokens) ?? 0
  }

  /** Records one part; the result is called for each layer with what was projected from the part's tokens → f32[d · H, n]. */
  start(step: Step, part: StepPart): (layer: AttentionLayer, projected: Projected) => Tensor {
    const keep = this.#keep.start(step, part)
    const reads = part.nTokens > 1 ? keep.read : undefined
    const reader = this.#reader(part.nTokens)
    const read = reads ?? reader.start(step, part, this.#keep.needsProbabilities)
    const stored = reads || reader !== this.#read ? this.#read.stored?.(step, part) : undefined
    return (layer, projected) => {
      const kept = keep.kept(layer, projected)
      stored?.(kept, projected)
      const { o, p } = read(kept, projected)
      if (p) keep.observe?.(layer.il, p)
      return o
    }
  }

  /** Keys read by the next `nTokens` queries, summed over layers and KV heads. */
  keysRead(cache: SequenceCache, nTokens: number): number {
    const read = this.#reader(nTokens)
    const part = { cache, nTokens, nRead: this.nRead(cache, nTokens) }
    return cache.layers.reduce((sum, { rows }, il) => sum + rows.length * read.keysRead(il, part), 0)
  }

  /** After a step, with its tokens appended. */
  settle(cache: SequenceCache, endsPrompt: boolean): void {
    this.#keep.settle?.(cache, endsPrompt)
  }

  #reader(nTokens: number): Read {
    return nTokens > 1 && (this.#keep.readsPrompts || !this.#read.readsPrompts) ? readAll : this.#read
  }
}

/** Attention of a whole step: what all parts share is computed once, the rest part by part. */
export function startStep(step: Step, attentions: readonly Attention[]): Attend {
  const parts = step.parts.map((part, i) => attentions[i]!.start(step, part))
  return (layer, x) => {
    const all = { q: project(step, layer.q, x), k: project(step, layer.k, x), v: project(step, layer.v, x) }
    // Not every method wants the rotated ones: they are recorded when first asked for.
    let rotated: { q: Tensor; k: Tensor } | undefined
    const turn = () =>
      (rotated ??= { q: rotate(step, layer, all.q, step.positions), k: rotate(step, layer, all.k, step.positions) })
    const outputs = step.parts.map((part, i) =>
      parts[i]!(layer, {
        q: slice(step, part, all.q),
        k: slice(step, part, all.k),
        v: slice(step, part, all.v),
        get rotated() {
          return { q: slice(step, part, turn().q), k: slice(step, part, turn().k) }
        },
      }),
    )
    return linear(step.g, layer.output, join(step, outputs))
  }
}
