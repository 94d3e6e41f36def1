/**
 * What an attention method is.
 *
 * A method answers one of three questions (an axis): whose queries, keys and values a head or layer uses (share), which rows
 * stay in the cache (keep), which of the kept rows a query reads (read). A setting takes at most one method per axis; the
 * empty answers together are dense attention. `attention.ts` puts the answers together; it asks for properties, never names.
 *
 * What an axis does in a step is said in three moments: `facts` looks at a sequence's cache and says all that the graph depends
 * on; `record` writes the graph from these facts alone, with no cache at hand, so that equal facts mean equal graphs; `commit`
 * notes what follows, once the step has succeeded.
 *
 * Shapes: H = nHead, G = nHeadKv, g = H / G, n = tokens of a chunk.
 */
import type { z } from 'zod'
import type { Json } from '../core/json.ts'
import type { LayerShape, ModelShape } from '../core/shape.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { KvCache } from '../kv/cache.ts'
import type { LayerLayout } from '../kv/layout.ts'
import type { Store } from '../kv/store.ts'
import type { Linear } from '../nn/linear.ts'
import type { Chunk, ChunkSize } from './chunk.ts'

export const AXES = ['share', 'keep', 'read'] as const
export type AxisName = (typeof AXES)[number]

/** One layer as attention sees it; all that kernels know of a model. */
export interface AttentionLayer extends LayerShape {
  /** f32[nHead], a score of each head that belongs to no key; null for none. */
  readonly sinks: Tensor | null
  /** f32[nEmbd, n] → f32[dK or dV, heads, n], with all that the model does before rotation; `heads` are all or some, ascending. */
  project(g: Graph, x: Tensor, which: 'q' | 'k' | 'v', heads?: readonly number[]): Tensor
  /** f32[dK, heads, n] to `positions` i32[n]; in a model without rotation, as it is. */
  rotate(g: Graph, x: Tensor, positions: Tensor): Tensor
  readonly output: Linear
}

/**
 * A chunk's queries, keys and values in one layer, before rotation and after: f32[dK, H, n] and f32[dK or dV, G, n]. Each is
 * computed when it is first asked for, for all tokens of the step at once; what no chunk asks for is not computed.
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
export interface KvView {
  readonly layer: AttentionLayer
  /** f32[dK, H, n], rotated so that a product with `k` is right. */
  readonly q: Tensor
  /** Keys as rows, `[dK, nKv, G]`: the cache itself or a rotated copy. */
  readonly k: Tensor
  readonly v: Store
  /** f16[nKv, n]: 0 for rows that a query may see, -∞ for the others. */
  readonly mask: Tensor
  /** Rows from `from` on (a whole tile), so many. */
  readonly from: number
  readonly nKv: number
}

/** What a read found: the outputs, and for methods that ask, the probabilities behind them. */
export interface ReadResult {
  /** f32[dV · H, n] */
  readonly o: Tensor
  /** f32[m, n · g, G] over rows `index` i32[m, G] of the view, distinct within a head, or over its first m rows if that is null. */
  readonly p: { readonly values: Tensor; readonly index: Tensor | null } | null
}

/** An axis of a setting, for a model. `F` are its facts: with {@link ChunkSize} all that a graph depends on. */
interface Axis<F extends Json> {
  /** Tokens that a chunk may bring at most. */
  maxChunk?(cache: KvCache): number
  facts?(cache: KvCache, size: ChunkSize): F
  /** After a step that succeeded, with its tokens appended. `endsPrompt`: it read the last of a prompt, or decoded. */
  commit?(cache: KvCache, facts: F, endsPrompt: boolean): void
  /** Makes what was noted fit a cache that is cut back to its first `nTokens`; false if that cannot be. Default: it fits. */
  truncate?(cache: KvCache, nTokens: number): boolean
}

/** Rows f32[width, heads, n] for the stores of these names. */
export type NewRows = { readonly [store: string]: Tensor }

/** What of a layer matters to its rows. */
export type WrittenLayer = Pick<AttentionLayer, 'il' | 'rotate'>

export interface Keep<F extends Json = any> extends Axis<F> {
  /** Keys stand at their positions in the text, or at places in the cache, which change as rows are dropped. */
  readonly positions: 'absolute' | 'cache'
  /** Rows that a sequence of up to `nCtx` tokens needs at once. */
  capacity(nCtx: number): number
  /** A sequence can go on for ever: neither its rows nor its positions grow. */
  readonly unbounded?: true
  /** It goes by the probabilities of every head. */
  readonly wantsProbs?: true
  /** It reads prompts itself ({@link KeepPart.prefill}), where a plain read of what is kept would not be right or not tell enough. */
  readonly prefills?: true
  /** The stores of a layer, made of those it would have by itself. */
  stores?(layer: LayerShape, own: LayerLayout): LayerLayout
  record(chunk: Chunk, facts: F): KeepPart
}

export interface KeepPart {
  /** Writes a chunk's new rows to stores of a layer. Keys come rotated to their positions, or, where these change, unrotated. */
  readonly write: (layer: WrittenLayer, rows: NewRows) => void
  /** What there is to read in a layer, once the new rows are written. */
  readonly view: (layer: AttentionLayer, projected: Projected) => KvView
  /** Products of queries and keys f32[nKv, n · g, G], not scaled, where they are not simply those of {@link view}. */
  readonly scores?: (view: KvView, projected: Projected) => Tensor
  /** How a prompt is read; a share may need the probabilities. */
  readonly prefill?: (view: KvView, projected: Projected, wantsProbs: boolean) => ReadResult
  /** Sees the probabilities of a layer. */
  observe?(il: number, p: NonNullable<ReadResult['p']>): void
}

export interface Read<F extends Json = any> extends Axis<F> {
  /** Whether it reads prompts too; otherwise they are read densely, or as the keep axis does. */
  readonly phases: 'decode' | 'both'
  /** True if of so many rows it reads whole tiles: {@link ChunkSize.nKv} is then a multiple of TILE. */
  readsTiles?(nRows: number): boolean
  /** The stores of a layer, made of those it would have by itself; `positions` as {@link Keep} has them. */
  stores?(layer: LayerShape, own: LayerLayout, positions: Keep['positions']): LayerLayout
  record(chunk: Chunk, facts: F, wantsProbs: boolean): ReadPart
  /** Keys that the chunk's queries read in a layer, per KV head. */
  cost(layer: LayerShape, cache: KvCache, size: ChunkSize, facts: F): number
}

export interface ReadPart {
  /** Keeps more of a layer's own new rows than keys and values; called for every chunk, also for those that somebody else reads. */
  write?(view: KvView, projected: Projected): void
  attend(view: KvView, projected: Projected): ReadResult
}

/** What the other two axes do with a chunk in one layer, for the share axis to call, in whole or in parts. */
export interface BaseAttention extends Pick<KeepPart, 'write' | 'view'> {
  readonly read: (view: KvView, projected: Projected) => ReadResult
  /** Products of queries and keys f32[nKv, n · g, G], not scaled and not masked, as dense attention has them. */
  readonly scores: (view: KvView, projected: Projected) => Tensor
  /** Writes the layer's own keys and values. */
  readonly store: (layer: AttentionLayer, projected: Projected) => void
  /** All of it: stores and reads. */
  readonly attend: (layer: AttentionLayer, projected: Projected) => ReadResult
  /** Every kept key is read plainly: who has a faster way may read by itself. */
  readonly isPlain: boolean
}

/** A chunk's attention in one layer: f32[dV · H, n], or null where attention adds nothing to the residual. */
export type SharePart = (layer: AttentionLayer, projected: Projected) => Tensor | null

export interface Share<F extends Json = any> extends Axis<F> {
  /** The stores of a layer, made of those it would have by itself; a layer without stores takes no rows. */
  stores?(layer: LayerShape, own: LayerLayout): LayerLayout
  /** Layers whose probabilities it wants: they are read densely, by products, and `p` is over rows 0…nKv - 1. */
  wantsProbs?(il: number): boolean
  /** Times that layers which depend on themselves are run for a prompt, instead of as the model says (attention/iterations.ts). */
  readonly iterations?: number
  record(chunk: Chunk, facts: F, base: BaseAttention): SharePart
  /** How often layer `il` reads each of its keys with its value: 1/2 where it reads one of the two. Default 1. */
  costShare?(il: number, facts: F): number
}

/** A method: one file, and one line in the registry. */
export interface Method<O extends z.ZodObject = z.ZodObject> {
  readonly name: string
  readonly axis: AxisName
  /** What it does, in a sentence. */
  readonly summary: string
  /** Where it comes from. */
  readonly source: string
  /** What it costs per token. */
  readonly cost: string
  readonly options: O
  /** Methods it cannot work with, and why. */
  readonly conflicts?: { readonly [name: string]: string }
  /** What it needs that an ordinary model lacks. */
  readonly needs?: string
  /** Options for an example, as they are written behind `name:`; left out, its first one's default. */
  readonly example?: string
  /** Why it cannot serve a model with these options, or null. */
  refuses?(shape: ModelShape, options: z.output<O>): string | null
}

export interface ShareMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'share'
  /** It uses what one layer finds in another, which must then keep the same rows. */
  readonly wantsSameRows?: true
  /** It does not tell what every head attends to: nobody can go by that beside it. */
  readonly tellsNoProbs?: true
  bind(options: z.output<O>, shape: ModelShape): Share
}

export interface KeepMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'keep'
  /** All layers and heads keep the same rows. */
  readonly sameRows?: true
  bind(options: z.output<O>, shape: ModelShape): Keep
}

export interface ReadMethod<O extends z.ZodObject = z.ZodObject> extends Method<O> {
  readonly axis: 'read'
  bind(options: z.output<O>, shape: ModelShape): Read
}

export type AnyMethod = ShareMethod<any> | KeepMethod<any> | ReadMethod<any>

/** Keys that dense attention reads for `nTokens` queries after `nBefore` tokens, per layer and KV head. */
export function keysDense(nBefore: number, nTokens: number, window = Infinity): number {
  const nWhole = Math.max(0, Math.min(nTokens, window - nBefore)) // queries that see everything before them
  return nWhole * nBefore + (nWhole * (nWhole + 1)) / 2 + (nTokens - nWhole) * (window === Infinity ? 0 : window)
}
