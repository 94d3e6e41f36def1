/** An architecture: what its files say, which tensors it needs, and the graph of one forward pass. One file each. */
import type { AttentionLayer } from '../attention/method.ts'
import type { Step } from '../attention/step.ts'
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Rope } from '../nn/rope.ts'
import type { WeightSource } from '../weights/source.ts'
import type { Uploader } from '../weights/upload.ts'

export interface Hyperparameters {
  readonly shape: ModelShape
  readonly normEps: number
  /** Null where positions are learned. */
  readonly rope: Rope | null
  /** Of layers with a window, if it is another. */
  readonly windowRope?: Rope
  readonly tiedOutput: boolean
  /** Of logits. */
  readonly softcap?: number | null
}

/** What a forward pass reads besides the step. */
export interface ForwardInputs {
  /** i32[nTokens] */
  readonly tokens: Tensor
  /** Columns whose logits are wanted, i32[nOut]; null if none are. */
  readonly outputs: Tensor | null
}

export interface Model {
  readonly layers: readonly { readonly attention: AttentionLayer }[]
  /** Logits f32[nVocab, nOut]; null if none are wanted, and then only what fills the cache is computed. */
  forward(step: Step, inputs: ForwardInputs): Tensor | null
}

export interface Architecture {
  /** Its name in GGUF files, and the model types in Hugging Face configs. */
  readonly gguf: string
  readonly huggingface: readonly string[]
  hyperparameters(source: WeightSource): Hyperparameters
  /** Declares the tensors; they can be used once the uploader has placed them. */
  build(hp: Hyperparameters, source: WeightSource, uploader: Uploader): Model
}
