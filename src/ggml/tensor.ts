/**
 * A tensor: an address inside ggml, and what we know of it without asking.
 *
 * The notation of shapes, for the whole project: ggml's order, the fastest-varying dimension first, so a matrix that
 * maps n inputs to m outputs is `[n, m]`, and the keys of a layer are `[headDim, rows, nHeadKv]`. Trailing ones are left out.
 */
import type { Pointer } from './bindings.ts'
import { blockSize, rowBytes, typeName } from './types.ts'

export type Shape = readonly [number, number, number, number]

export interface Tensor {
  readonly ptr: Pointer
  /** ggml's type id. */
  readonly type: number
  /** Elements along each dimension. */
  readonly ne: Shape
  /** Bytes from one element to the next along each dimension. */
  readonly nb: Shape
  /** A matrix in a layout of the processor's own, where rows do not lie one after another: it is multiplied whole or not at all. */
  readonly isPacked?: true
}

export function shapeOf(...ne: readonly number[]): Shape {
  return [ne[0] ?? 1, ne[1] ?? 1, ne[2] ?? 1, ne[3] ?? 1]
}

export function nElements(ne: Shape): number {
  return ne[0] * ne[1] * ne[2] * ne[3]
}

/** Strides of a contiguous tensor. */
export function stridesOf(type: number, ne: Shape): Shape {
  const row = rowBytes(type, ne[0])
  return [elementBytes(type), row, row * ne[1], row * ne[1] * ne[2]]
}

/** ggml's nb[0]: bytes of an element, or of a whole block for quantised types. */
export function elementBytes(type: number): number {
  return rowBytes(type, blockSize(type))
}

export function nBytes(t: Tensor): number {
  return rowBytes(t.type, t.ne[0]) * t.ne[1] * t.ne[2] * t.ne[3]
}

export function isContiguous(t: Tensor): boolean {
  const dense = stridesOf(t.type, t.ne)
  return t.ne.every((n, i) => n === 1 || t.nb[i] === dense[i])
}

export function describe(t: Tensor): string {
  return `${typeName(t.type)}[${t.ne.join(',')}]`
}

/** A mistake of ours, caught before C would abort the process. */
export function check(condition: boolean, op: string, ...tensors: readonly Tensor[]): void {
  if (!condition) throw new Error(`${op}: shapes do not fit: ${tensors.map(describe).join(' · ')}`)
}
