/** The way through a model's layers: one after another, and groups that depend on themselves several times. */
import type { Pass } from '../attention/iterations.ts'
import type { AttentionLayer } from '../attention/method.ts'
import type { Tensor } from '../ggml/tensor.ts'

/** Layers first … last. */
export interface LayerGroup {
  readonly first: number
  readonly last: number
}

/** Groups that depend on themselves: from a layer that reads a later one to the last layer that one of them reads. */
export function groupsOf(kvSources: readonly number[]): LayerGroup[] {
  const groups: LayerGroup[] = []
  for (let first = 0; first < kvSources.length; first++) {
    if (kvSources[first]! <= first) continue
    let last = kvSources[first]!
    for (let il = first; il <= last; il++) last = Math.max(last, kvSources[il]!)
    groups.push({ first, last })
    first = last
  }
  return groups
}

/** What layer `il` makes of x; `pass` is null for layers that run once. */
export type RunLayer = (il: number, x: Tensor, pass: Pass | null) => Tensor

/**
 * f32[nEmbd, n] through all layers. A group runs `nPasses` times from the same x, of which only the last goes on; the others are
 * for what attention writes meanwhile.
 */
export function throughLayers(
  layers: readonly AttentionLayer[],
  { nPasses, x, run }: { nPasses: number; x: Tensor; run: RunLayer },
): Tensor {
  const groups = groupsOf(layers.map(({ kvSource }) => kvSource))
  let now = x
  for (let il = 0; il < layers.length;) {
    const { first, last } = groups.find((group) => group.first === il) ?? { first: il, last: il }
    const isGroup = groups.some((group) => group.first === il)
    const inside = layers.slice(first, last + 1)
    const targets = [...new Set(inside.filter((layer) => layer.kvSource > layer.il).map(({ kvSource }) => layers[kvSource]!))]
    for (let number = 1, before = now; number <= (isGroup ? nPasses : 1); number++) {
      const pass = isGroup ? { first, last, number, of: nPasses, targets } : null
      now = inside.reduce((y, layer) => run(layer.il, y, pass), before)
    }
    il = last + 1
  }
  return now
}
