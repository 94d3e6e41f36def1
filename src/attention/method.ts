/**
 * What an attention method is.
 *
 * A method answers one of three questions (an axis): whose queries, keys and values a head or layer uses (share), which rows
 * stay in the cache (keep), which of the kept rows a query reads (read). A setting takes at most one method per axis; the
 * empty answers together are dense attention. `attention.ts` puts the answers together; it asks for properties, never names.
 *
 * Shapes: d = headDim, H = nHead, G = nHeadKv, g = H / G, n = tokens of a part.
 */
import type { z } from 'zod'
import type { ModelShape } from '../core/shape.ts'
import type { Graph } from '../ggml/graph.ts'
import type { RopeParams } from '../ggml/ops.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { SequenceCache } from '../kv/cache.ts'
import type { StoreLayout } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import type { Linear } from '../nn/linear.ts'

export const AXES = ['share', 'keep', 'read'] as const
export type Axis = (typeof AXES)[number]

/** One layer as attention sees it. */
export interface AttentionLayer {
  readonly il: number
  readonly q: Linear
  readonly k: Linear
  readonly v: Linear
  readonly output: Linear
  readonly rope: RopeParams
  /** f32[nDims / 2], or null. */
  readonly ropeFactors: Tensor | null
}

/** One sequence's share of a step: `nTokens` columns of the step from `first` on. */
export interface StepPart {
  readonly cache: SequenceCache
  readonly first: number
  readonly nTokens: number
  /** Rows a read covers: those touched so far and the new ones, rounded up. */
  readonly nRead: number
}

/** One forward pass being recorded. */
export interface Step {
  readonly g: Graph
  readonly shape: ModelShape
  readonly nTokens: number
  /** i32[nTokens] */
  readonly positions: Tensor
  readonly parts: readonly StepPart[]
}

/** A part's queries, keys and values in one layer, before rotation and after: f32[d, H, n] and f32[d, G, n]. */
export interface Projected {
  readonly q: Tensor
  readonly k: Tensor
  readonly v: Tensor
  readonly rotated: { readonly q: Tensor; readonly k: Tensor }
}

/** What the keep axis hands to the read axis: what there is to read in one layer. */
export interface Kept {
  readonly layer: AttentionLayer
  /** f32[d, H, n], rotated so that a product with `k` is right. */
  readonly q: Tensor
  /** Keys as rows, `[d, nRead, G]`: the cache itself or a rotated copy. */
  readonly k: Tensor
  readonly v: Store
  /** f16[nRead, n]: 0 for rows that a query may see, -∞ for the others. */
  readonly mask: Tensor
  readonly nRead: number
}

/** What a read found: the outputs, and for methods that ask, the probabilities behind them. */
export interface ReadResult {
  /** f32[d · H, n] */
  readonly o: Tensor
  /** f32[m, n · g, G] over rows `index` i32[m, G], distinct within a head, or over rows 0…m-1 if that is null. */
  readonly p: { readonly values: Tensor; readonly index: Tensor | null } | null
}

export type ReadLayer = (kept: Kept, projected: Projected) => ReadResult

/** How the keep axis has keys stored: their ggml type, and see {@link Keep.positions}. */
export interface StoredKeys {
  readonly type: number
  readonly positions: Keep['positions']
}

/** The read axis, with its options. */
export interface Read {
  /** Stores it adds to a layer, beside k and v; `keys` says how keys are stored. */
  stores?(shape: ModelShape, il: number, keys: StoredKeys): { readonly [name: string]: StoreLayout }
  /** How layer `il` wants its values stored. */
  valueOrder(il: number): StoreLayout['order']
  /** True if of so many rows it reads whole tiles of columns: {@link StepPart.nRead} is then a multiple of TILE. */
  readsTiles?(nRows: number): boolean
  /** True if it reads prompts too; otherwise they are read densely, or as the keep axis does. */
  readonly readsPrompts: boolean
  /** What of the cache changes the graph, besides the number of rows. */
  graphKey?(cache: SequenceCache, nTokens: number): string
  /** Graph nodes that a part of `nTokens` takes in a layer, where they are more than a few dozen. */
  nNodes?(nTokens: number): number
  /** Creates the inputs of a part; the result is called for each layer, after the new rows are written. */
  start(step: Step, part: StepPart, needsProbabilities: boolean): ReadLayer
  /**
   * For parts that it does not read itself, for whoever keeps more of a row than its key and value: creates the inputs of a
   * part; the result is called for each layer, after the new rows are written.
   */
  stored?(step: Step, part: StepPart): (kept: Kept, projected: Projected) => void
  /** Keys that the part's queries read in layer `il`, per KV head. */
  keysRead(il: number, part: Pick<StepPart, 'cache' | 'nTokens' | 'nRead'>): number
}

/** The keep axis, with its options. */
export interface Keep {
  /** Keys stand at their positions in the text, or at places in the cache, which change as rows are dropped. */
  readonly positions: 'absolute' | 'cache'
  readonly needsProbabilities: boolean
  /** Rows that a sequence of up to `nCtx` tokens needs at once. */
  nRows(nCtx: number): number
  /** True if a sequence can go on for ever: neither its rows nor its positions grow. */
  readonly isEndless: boolean
  stores?(shape: ModelShape): { readonly [name: string]: StoreLayout }
  /** Tokens that a part may bring at most. */
  mostTokens?(cache: SequenceCache): number
  /** True if it reads prompts itself, where a plain read of what is kept would not be right or not tell enough. */
  readonly readsPrompts?: boolean
  /** What of the cache changes the graph, besides the number of rows. */
  graphKey?(cache: SequenceCache, nTokens: number): string
  /** Graph nodes that a part of a prompt takes in a layer, if it reads prompts and they are more than a few dozen. */
  nNodes?(nTokens: number): number
  /** Creates the inputs of a part. */
  start(step: Step, part: StepPart): KeepLayer
  /** After a step: drops rows. `endsPrompt` is true when the step read the last of a prompt, or decoded. */
  settle?(cache: SequenceCache, endsPrompt: boolean): void
}

export interface KeepLayer {
  /** What there is to read in a layer, once the new rows are written. */
  kept(layer: AttentionLayer, projected: Projected): Kept
  /** How it reads prompts itself; there if and only if it {@link Keep.readsPrompts}. */
  readonly read?: (kept: Kept, projected: Projected) => ReadResult
  /** Sees the probabilities of a layer. */
  observe?(il: number, p: NonNullable<ReadResult['p']>): void
}

/** A method: one file, and one line in the registry. */
export interface Method<O extends z.ZodObject = z.ZodObject> {
  readonly name: string
  readonly axis: Axis
  /** What it does, in a sentence. */
  readonly summary: string
  /** Where it comes from. */
  readonly source: string
  /** What it costs per token. */
  readonly cost: string
  readonly options: O
  /** Options with which it equals dense attention up to `nTokens`; the conformance tests begin there. */
  exactFor(nTokens: number): z.input<O>
  /** Options with which it has something to leave out at `nTokens` (some hundreds). */
  tightFor(nTokens: number): z.input<O>
  /** Methods it cannot work with, and why. */
  readonly conflicts?: { readonly [name: string]: string }
  /** Why it cannot serve a model with these options, or null. */
  refuses?(shape: ModelShape, options: z.output<O>): string | null
}

export interface KeepMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'keep'
  bind(options: z.output<O>, shape: ModelShape): Keep
}

export interface ReadMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'read'
  bind(options: z.output<O>, shape: ModelShape): Read
}

export type AnyMethod = KeepMethod<any> | ReadMethod<any>

/** Keys that dense attention reads for `nTokens` queries after `nBefore` tokens, per layer and KV head. */
export function keysDense(nBefore: number, nTokens: number): number {
  return nTokens * nBefore + (nTokens * (nTokens + 1)) / 2
}
