/** The way through a model's layers: one after another, and some of them several times, where attention asks for it. */
import type { Cycle } from '../attention/method.ts'
import type { Tensor } from '../ggml/tensor.ts'

/**
 * `run` gives what layer `il` makes of x. The layers of a cycle run from the same x several times, of which only the last goes on;
 * the others are for what attention writes meanwhile.
 */
export function throughLayers(nLayer: number, cycles: readonly Cycle[], { x, run }: { x: Tensor; run: RunLayer }): Tensor {
  let now = x
  for (let il = 0; il < nLayer; il++) {
    const { last = il, passes = 1 } = cycles.find(({ first }) => first === il) ?? {}
    for (let pass = 1; pass < passes; pass++) {
      let again = now
      for (let i = il; i <= last; i++) again = run(i, again)
    }
    now = run(il, now)
  }
  return now
}

export type RunLayer = (il: number, x: Tensor) => Tensor
