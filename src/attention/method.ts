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
import type { LayerLayout, StoreLayout } from '../kv/layout.ts'
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
  /** True if no query sees its own key; only the first token of all does, which otherwise would see none. */
  readonly isStrict?: boolean
}

/** Layers first … last that a step runs several times, always from the same input; only the last run goes on. */
export interface Cycle {
  readonly first: number
  readonly last: number
  readonly passes: number
}

/** One forward pass being recorded. */
export interface Step {
  readonly g: Graph
  readonly shape: ModelShape
  readonly nTokens: number
  /** i32[nTokens] */
  readonly positions: Tensor
  readonly parts: readonly StepPart[]
  readonly cycles?: readonly Cycle[]
}

/**
 * A part's queries, keys and values in one layer, before rotation and after: f32[d, H, n] and f32[d, G, n]. Each is computed when
 * it is first asked for, for all tokens of the step at once; what no part asks for is not computed.
 */
export interface Projected {
  /** What they are projected from: f32[nEmbd, n]. */
  readonly x: Tensor
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

/** What of a layer matters to its rows. */
export type WrittenLayer = Pick<AttentionLayer, 'il' | 'rope' | 'ropeFactors'>

/** Rows f32[width, heads, n] for the stores of these names. */
export type NewRows = { readonly [store: string]: Tensor }

export interface KeepLayer {
  /** Writes a part's new rows to stores of a layer. Keys come rotated to their positions, or, where these change, unrotated. */
  readonly write: (layer: WrittenLayer, rows: NewRows) => void
  /** What there is to read in a layer, once the new rows are written. */
  readonly kept: (layer: AttentionLayer, projected: Projected) => Kept
  /** Products of queries and keys f32[nRead, n · g, G], not scaled, where they are not simply those of {@link kept}. */
  readonly scores?: (kept: Kept, projected: Projected) => Tensor
  /** How it reads prompts itself; there if and only if it {@link Keep.readsPrompts}. A share may need the probabilities. */
  readonly read?: (kept: Kept, projected: Projected, needsProbabilities: boolean) => ReadResult
  /** Sees the probabilities of a layer. */
  observe?(il: number, p: NonNullable<ReadResult['p']>): void
}

/** What the other two axes do with a part in one layer, for the share axis to call, in whole or in parts. */
export interface OwnLayer extends Pick<KeepLayer, 'write' | 'kept'> {
  readonly read: ReadLayer
  /** Products of queries and keys f32[nRead, n · g, G], not scaled and not masked, as dense attention has them. */
  readonly scores: (kept: Kept, projected: Projected) => Tensor
  /** Writes the layer's own keys and values. */
  readonly store: (layer: AttentionLayer, projected: Projected) => void
  /** All of it: stores and reads. */
  readonly attend: (layer: AttentionLayer, projected: Projected) => ReadResult
  /** The same where no query sees its own key, see {@link StepPart.isStrict}. */
  strict(): OwnLayer
  /** True if every kept key is read plainly: who has a faster way may read by itself. */
  readonly readsAll: boolean
  /** The same for layers whose keys have `nHeadKv` heads, with as many query heads for each as the model has. */
  withHeads(nHeadKv: number): OwnLayer
}

/** A part's attention in one layer: f32[d · H, n], or null where attention adds nothing to the residual. */
export type AttendLayer = (layer: AttentionLayer, projected: Projected) => Tensor | null

/** The share axis, with its options. */
export interface Share {
  /** The stores of layer `il`, made of those it would have by itself; a layer without stores takes no rows. */
  stores?(il: number, own: LayerLayout): LayerLayout
  /** The layer whose rows layer `il` reads; that layer reads its own. Default: its own. */
  reads?(il: number): number
  /** Groups of layers that a part of `nTokens` must run several times. */
  cycles?(nTokens: number): readonly Cycle[]
  /** True for layers whose probabilities it wants: they are read densely, by products, and `p` is over rows 0…nRead - 1. */
  needsProbabilities?(il: number): boolean
  /** Tokens that a part may bring at most. */
  mostTokens?(cache: SequenceCache): number
  /** What of the cache changes the graph, besides the number of rows. */
  graphKey?(cache: SequenceCache, nTokens: number): string
  /** Graph nodes that a part of `nTokens` takes in a layer, where they are more than a few dozen. */
  nNodes?(nTokens: number): number
  /** Creates the inputs of a part; the result is called for each layer. */
  start(step: Step, part: StepPart, own: OwnLayer): AttendLayer
  /** After a step, with its tokens appended and rows dropped. */
  settle?(cache: SequenceCache, endsPrompt: boolean): void
  /** False if `cache` cut back to `nTokens` would hold what depends on later ones. Default true. */
  canTruncate?(cache: SequenceCache, nTokens: number): boolean
  /** How often layer `il` reads each of its keys with its value: 1/2 where it reads one of the two. Default 1. */
  keyShare?(il: number, cache: SequenceCache, nTokens: number): number
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
  /** What it needs that an ordinary model lacks; the general conformance tests leave such a method to its own. */
  readonly needs?: string
  /** Options for an example, as they are written behind `name:`; left out, its first one's default. */
  readonly example?: string
  /** Why it cannot serve a model with these options, or null. */
  refuses?(shape: ModelShape, options: z.output<O>): string | null
}

export interface ShareMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'share'
  /** True if it uses what one layer finds in another, which must then keep the same rows. */
  readonly wantsSameRows?: true
  /** True if it does not tell what every head attends to: nobody can go by that beside it. */
  readonly tellsNoProbabilities?: true
  /** True for models that cannot run without it: it is then part of every setting. */
  isOfModel?(shape: ModelShape): boolean
  bind(options: z.output<O>, shape: ModelShape): Share
}

export interface KeepMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'keep'
  /** True if all layers and heads keep the same rows. */
  readonly sameRows?: true
  bind(options: z.output<O>, shape: ModelShape): Keep
}

export interface ReadMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'read'
  bind(options: z.output<O>, shape: ModelShape): Read
}

export type AnyMethod = ShareMethod<any> | KeepMethod<any> | ReadMethod<any>

/** Keys that dense attention reads for `nTokens` queries after `nBefore` tokens, per layer and KV head. */
export function keysDense(nBefore: number, nTokens: number): number {
  return nTokens * nBefore + (nTokens * (nTokens + 1)) / 2
}
