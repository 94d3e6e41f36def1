/** Queries, keys and values of a step and of its chunks, each recorded when it is first asked for: not all methods want all of them. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Chunk } from './chunk.ts'
import type { AttentionLayer, Projected } from './method.ts'

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

/** From the normed residual f32[nEmbd, n] of tokens at `positions` i32[n]. */
export function projections(g: Graph, layer: AttentionLayer, { x, positions }: { x: Tensor; positions: Tensor }): Projected {
  const all = lazily({
    x: () => x,
    q: () => project('q'),
    k: () => project('k'),
    v: () => project('v'),
    rotatedQ: () => rotate('q'),
    rotatedK: () => rotate('k'),
  })
  const project = (which: 'q' | 'k' | 'v') => g.within({ part: 'attention.projections' }, () => layer.project(g, x, which))
  const rotate = (which: 'q' | 'k') => g.within({ part: 'attention.rotation' }, () => layer.rotate(g, all[which], positions))
  return all
}

/** Of one chunk, out of those of the step. */
export function columnsOf(chunk: Chunk, all: Projected): Projected {
  return lazily({
    x: () => chunk.columns(all.x, 1),
    q: () => chunk.columns(all.q, 2),
    k: () => chunk.columns(all.k, 2),
    v: () => chunk.columns(all.v, 2),
    rotatedQ: () => chunk.columns(all.rotated.q, 2),
    rotatedK: () => chunk.columns(all.rotated.k, 2),
  })
}
