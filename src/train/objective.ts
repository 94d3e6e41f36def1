/** What a run makes smaller. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Batch } from './batch.ts'
import type { Parameters } from './parameters.ts'

export interface Objective {
  readonly parameters: Parameters
  readonly nVocab: number
  /** Records the loss of a batch, f32[1]. */
  loss(g: Graph, batch: Batch): Tensor
  /** What held-out text is measured by, if it is another: f32[1]. */
  measured?(g: Graph, batch: Batch): Tensor
}
