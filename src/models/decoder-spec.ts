/** How one architecture differs from what decoder-only models are by default: Llama. */
import type { LayerShape, ModelShape } from '../core/shape.ts'
import type { Activation } from '../nn/mlp.ts'
import type { Rope } from '../nn/rope.ts'
import type { WeightSource } from '../weights/source.ts'
import type { Fields } from './hyperparameters.ts'

/** Names of tensors in a file, without `.weight` and `.bias`; those of a layer stand behind `<layer>.<il>.`. */
export interface TensorNames {
  readonly embedding: string
  readonly positions: string
  readonly layer: string
  readonly attentionNorm: string
  readonly q: string
  readonly k: string
  readonly v: string
  readonly attentionOutput: string
  readonly qNorm: string
  readonly kNorm: string
  readonly attentionPostNorm: string
  readonly mlpNorm: string
  readonly gate: string
  readonly up: string
  readonly down: string
  readonly mlpPostNorm: string
  readonly outputNorm: string
  readonly output: string
}

/** Keys of a Hugging Face config, and what they mean when they are left out. */
export interface ConfigKeys {
  readonly nFf: string
  readonly activation: string
  readonly defaults: Readonly<Record<string, number>>
  readonly tiedByDefault: boolean
}

/** What a file says of a model, whichever its format. */
export interface Said {
  readonly f: Fields
  readonly source: WeightSource
  readonly isGguf: boolean
  readonly nLayer: number
  readonly nEmbd: number
  readonly nHead: number
  readonly headDim: number
  readonly nCtxTrain: number
}

export interface DecoderSpec {
  readonly gguf: string
  readonly huggingface: readonly string[]
  /** Where rotation is applied: neighbouring pairs (0) or halves of a head (2); none where positions are learned. */
  readonly ropeMode: { readonly gguf: Rope['mode']; readonly huggingface: Rope['mode'] } | null
  readonly norm?: 'rms' | 'layer'
  /** Queries and keys of each head are normed before they are rotated. */
  readonly headNorms?: boolean
  /** What attention and feed-forward add is normed. */
  readonly postNorms?: boolean
  /** Hugging Face files hold norm weights less this. */
  readonly normOffset?: number
  /** Default silu, gated. */
  readonly activation?: Activation
  readonly gated?: boolean
  /** Names in configs of the activation, as they may be written. */
  readonly activationNames?: readonly string[]
  /** Hugging Face's names where they are not Llama's, and what may stand before them. */
  readonly names?: Partial<TensorNames>
  readonly prefixes?: readonly string[]
  /** Rows of Hugging Face's table of positions before the first. */
  readonly unusedPositions?: number
  readonly config?: Partial<ConfigKeys>
  /** GGUF's key and the default of the norms' epsilon. */
  readonly eps?: { readonly gguf: string; readonly config: number }
  embeddingScale?(shape: ModelShape): number
  /** What layers have that others do not. */
  layers?(said: Said): (il: number) => Partial<LayerShape>
  /** RoPE of layers with a window. */
  windowRope?(said: Said, rope: Rope): Rope
  /** More of the shape, and of logits. */
  more?(said: Said): { readonly shape?: Partial<ModelShape>; readonly softcap?: number | null }
  /** Throws for what cannot be served. */
  check?(said: Said): void
}
