/** Queries, keys and values of a step and of its chunks, each recorded when it is first asked for: not all methods want all of them. */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Chunk } from './chunk.ts'
import type { AttentionLayer, Projected } from './method.ts'

/** How each of them is recorded. */
type Makers = Readonly<Record<'x' | 'q' | 'k' | 'v' | 'rotatedQ' | 'rotatedK', () => Tensor>>

/** Each is made once, and only if somebody asks. */
function lazily(make: Makers): Projected {
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

/** With queries and keys that the layer rotates to `positions` i32[n]. */
export function rotating(
  g: Graph,
  { layer, positions }: { readonly layer: AttentionLayer; readonly positions: Tensor },
  make: Pick<Makers, 'x' | 'q' | 'k' | 'v'>,
): Projected {
  const all = lazily({
    ...make,
    rotatedQ: () => rotate('q'),
    rotatedK: () => rotate('k'),
  })
  const rotate = (which: 'q' | 'k') => g.within({ part: 'attention.rotation' }, () => layer.rotate(g, all[which], positions))
  return all
}

interface Projecting {
  /** The normed residual f32[nEmbd, n], and where its tokens stand, i32[n]. */
  readonly x: Tensor
  readonly positions: Tensor
  /** Values that are there already. */
  readonly v?: Tensor
}

export function projections(g: Graph, layer: AttentionLayer, { x, positions, v }: Projecting): Projected {
  const project = (which: 'q' | 'k' | 'v') => () => g.within({ part: 'attention.projections' }, () => layer.project(g, x, which))
  return rotating(g, { layer, positions }, { x: () => x, q: project('q'), k: project('k'), v: v ? () => v : project('v') })
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
