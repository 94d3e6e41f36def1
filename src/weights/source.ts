/** Where weights come from: a GGUF file (or its splits), or a Hugging Face folder. Both describe themselves the same way. */

import type { Shape } from '../ggml/tensor.ts'

export interface TensorInfo {
  readonly name: string
  /** ggml's type id. */
  readonly type: number
  readonly ne: Shape
  /** Index into {@link WeightSource.files}. */
  readonly file: number
  /** First byte in that file; within it, checked. */
  readonly offset: number
  readonly nBytes: number
}

export type MetadataValue =
  | string
  | number
  | boolean
  | readonly MetadataValue[]
  | { readonly [key: string]: MetadataValue }
  | null

export interface WeightSource extends Disposable {
  readonly path: string
  readonly format: 'gguf' | 'huggingface'
  readonly files: readonly string[]
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** GGUF: the file's key-value pairs (long arrays are read when asked for). Hugging Face: config.json's fields. */
  metadata(key: string): MetadataValue | undefined
  metadataKeys(): readonly string[]
}
