/**
 * Layers that depend on themselves (LCKV, arXiv 2405.10637, section 2): a group reads keys and values that its last layers compute.
 * A token is decoded in one pass, for what it reads is there already. A prompt runs the group several times, each time with the
 * keys and values of the time before, at first zeros; token i is exact from pass i + 1 on.
 */
import { F32 } from '../ggml/types.ts'
import type { Chunk } from './chunk.ts'
import { afterFirst, type Recorded } from './attention.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { AttentionLayer, Projected } from './method.ts'

/** One of the times that a step runs layers `first` … `last`. */
export interface Pass {
  readonly first: number
  readonly last: number
  /** 1 … of; only what the last one makes goes on. */
  readonly number: number
  readonly of: number
  /** Layers whose keys and values are read before they are computed. */
  readonly targets: readonly AttentionLayer[]
}

/** f32[dV · H, n] of a chunk that needs `nPasses`, or null where nothing is added: a step may run more, then it joins in late. */
export function attendIn(
  pass: Pass | null,
  { chunk, recorded, nPasses }: { readonly chunk: Chunk; readonly recorded: Recorded; readonly nPasses: number },
  { layer, projected }: { readonly layer: AttentionLayer; readonly projected: Projected },
): Tensor | null {
  const { attend, base } = recorded
  if (pass === null || pass.number === pass.of) return attend(layer, projected)
  const number = pass.number - (pass.of - nPasses)
  if (number < 1) return null
  if (number === 1 && layer.il === pass.first) for (const target of pass.targets) base.write(target, zeros(chunk, target))
  if (layer.kvSource === layer.il) base.store(layer, projected)
  if (layer.il === pass.last) return null // keys and values are all that was wanted
  const { o } = base.read(base.view(layer, projected), projected)
  return layer.visible === 'strict' ? afterFirst(chunk, o) : o
}

/** Keys and values of nothing, for all of a chunk's tokens. */
function zeros(chunk: Chunk, { dK, dV, nHeadKv }: AttentionLayer): { readonly k: Tensor; readonly v: Tensor } {
  const of = (width: number) =>
    chunk.once(`zeros:${width}:${nHeadKv}`, () => chunk.input(F32, [width, nHeadKv, chunk.nTokens], (data) => data.fill(0)))
  return { k: of(dK), v: of(dV) }
}
