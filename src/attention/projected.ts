/** Queries, keys and values of a step and of its parts, each recorded when it is first asked for: not all methods want all of them. */
import type { Tensor } from '../ggml/tensor.ts'
import type { AttentionLayer, Projected, Step, StepPart } from './method.ts'
import { project, rotate, slice } from './pieces.ts'

/** How each of them is recorded. */
type Makers = Readonly<Record<'x' | 'q' | 'k' | 'v' | 'rotatedQ' | 'rotatedK', () => Tensor>>

/** Each is made once, and only if somebody asks. */
export function lazily(make: Makers): Projected {
  const made: Partial<Record<keyof Makers, Tensor>> = {}
  const once = (name: keyof Makers) => (made[name] ??= make[name]())
  return {
    get x() {
      return once('x')
    },
    get q() {
      return once('q')
    },
    get k() {
      return once('k')
    },
    get v() {
      return once('v')
    },
    rotated: {
      get q() {
        return once('rotatedQ')
      },
      get k() {
        return once('rotatedK')
      },
    },
  }
}

/** Of a whole step, from the normed residual f32[nEmbd, nTokens]. */
export function projections(step: Step, layer: AttentionLayer, x: Tensor): Projected {
  const all = lazily({
    x: () => x,
    q: () => project(step, layer.q, x),
    k: () => project(step, layer.k, x),
    v: () => project(step, layer.v, x),
    rotatedQ: () => rotate(step, layer, all.q, step.positions),
    rotatedK: () => rotate(step, layer, all.k, step.positions),
  })
  return all
}

/** Of one part, out of those of the step. */
export function columnsOf(step: Step, part: StepPart, all: Projected): Projected {
  const { g, shape, nTokens } = step
  const of = (y: Tensor) => slice(step, part, y)
  return lazily({
    x: () => g.reshape(of(g.reshape(all.x, shape.nEmbd, 1, nTokens)), shape.nEmbd, part.nTokens),
    q: () => of(all.q),
    k: () => of(all.k),
    v: () => of(all.v),
    rotatedQ: () => of(all.rotated.q),
    rotatedK: () => of(all.rotated.k),
  })
}
