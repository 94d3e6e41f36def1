/** Queries, keys and values of a step and of its parts, each recorded when it is first asked for: not all methods want all of them. */
import type { Tensor } from '../ggml/tensor.ts'
import type { AttentionLayer, Projected, Step, StepPart } from './method.ts'
import { project, rotate, slice } from './pieces.ts'

/** Of a whole step, from the normed residual f32[nEmbd, nTokens]. */
export function projections(step: Step, layer: AttentionLayer, x: Tensor): Projected {
  const made: { [name: string]: Tensor } = {}
  const once = (name: string, make: () => Tensor) => (made[name] ??= make())
  const all: Projected = {
    x,
    get q() {
      return once('q', () => project(step, layer.q, x))
    },
    get k() {
      return once('k', () => project(step, layer.k, x))
    },
    get v() {
      return once('v', () => project(step, layer.v, x))
    },
    rotated: {
      get q() {
        return once('rotated q', () => rotate(step, layer, all.q, step.positions))
      },
      get k() {
        return once('rotated k', () => rotate(step, layer, all.k, step.positions))
      },
    },
  }
  return all
}

/** Of one part, out of those of the step. */
export function columnsOf(step: Step, part: StepPart, all: Projected): Projected {
  const of = (x: Tensor) => slice(step, part, x)
  return {
    get x() {
      const { g, shape } = step
      return g.reshape(of(g.reshape(all.x, shape.nEmbd, 1, step.nTokens)), shape.nEmbd, part.nTokens)
    },
    get q() {
      return of(all.q)
    },
    get k() {
      return of(all.k)
    },
    get v() {
      return of(all.v)
    },
    rotated: {
      get q() {
        return of(all.rotated.q)
      },
      get k() {
        return of(all.rotated.k)
      },
    },
  }
}
