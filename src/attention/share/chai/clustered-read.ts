/** A layer's attention where one head of every cluster attends, and the others use its probabilities with their own values. */
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { I32 } from '../ggml/types.ts'
import type { Linear } from '../nn/linear.ts'
import { FLASH_QUERIES } from './dense.ts'
import type { HeadClusters } from './head-clusters.ts'
import type { AttentionLayer, Kept, OwnLayer, Projected, Step, StepPart } from './method.ts'
import { concatAll, partPositions, rotate, softmax, ungroupHeads, weighStored, withHeadsOf } from './pieces.ts'
import { lazily } from './projected.ts'

export class ClusteredRead {
  readonly #step: Step
  readonly #part: StepPart
  readonly #own: OwnLayer
  readonly #positions: Tensor

  constructor(step: Step, part: StepPart, own: OwnLayer) {
    this.#step = step
    this.#part = part
    this.#own = own
    this.#positions = partPositions(step, part)
  }

  static nNodes({ nHeadKv }: ModelShape): number {
    return 16 * nHeadKv + 64
  }

  /** f32[d · H, n]. */
  attend(layer: AttentionLayer, all: Projected, clusters: HeadClusters): Tensor {
    const own = this.#own
    const projected = this.#representatives(layer, all, clusters)
    own.store(layer, projected)
    const kept = own.kept(layer, projected)
    if (own.readsAll && this.#part.nTokens >= FLASH_QUERIES) return this.#flash(kept, clusters)
    return this.#weigh(kept, this.#probabilities(kept, projected, clusters), clusters)
  }

  /** f32[nRead, n · g, c] */
  #probabilities(kept: Kept, projected: Projected, { heads }: HeadClusters): Tensor {
    const scores = this.#own.withHeads(heads.length).scores(kept, projected)
    return softmax(withHeadsOf(this.#step, heads.length), scores, kept.mask, this.#part.nTokens)
  }

  #weigh({ v }: Kept, p: Tensor, { of }: HeadClusters): Tensor {
    const { g } = this.#step
    const [m, rows, c] = p.ne
    const each = g.getRows(g.reshape(p, m * rows, c), this.#constant(of, 1))
    return ungroupHeads(this.#step, weighStored(this.#step, g.reshape(each, m, rows, of.length), v), this.#part.nTokens)
  }

  /** One pass per cluster: the members' values side by side are the values of its representative. */
  #flash({ q, k, v, mask, nRead }: Kept, { heads, of }: HeadClusters): Tensor {
    const { g, shape } = this.#step
    const { headDim: d, nHead: H, nHeadKv: G } = shape
    const [group, n] = [H / G, q.ne[2]]
    const values = v.rows(g, nRead)
    const ofHead = (x: Tensor, head: number) => g.view(x, [d, nRead, 1, 1], [x.nb[1], x.nb[2], x.nb[3]], head * x.nb[2])
    const outputs: Tensor[] = [] // of each KV head, f32[d, g, 1, n]
    for (let cluster = 0; cluster < heads.length; cluster++) {
      const members = [...of.keys()].filter((head) => of[head] === cluster)
      const beside = concatAll(
        g,
        members.map((head) => ofHead(values, head)),
        0,
      )
      const queries = g.view(q, [d, group, n, 1], [q.nb[1], q.nb[2], q.nb[3]], cluster * group * q.nb[1])
      const o = g.flashAttnExt(g.permute(queries, 0, 2, 1, 3), ofHead(k, cluster), beside, mask, 1 / Math.sqrt(d))
      for (const [i, head] of members.entries()) {
        outputs[head] = g.view(o, [d, group, 1, n], [o.nb[1], o.nb[2], o.nb[2]], i * d * o.nb[0])
      }
    }
    return g.reshape(concatAll(g, outputs, 2), d * H, n)
  }

  /** Queries and keys of the representatives only. */
  #representatives(layer: AttentionLayer, all: Projected, { heads }: HeadClusters): Projected {
    const { shape } = this.#step
    const { x } = all
    const rotated = (y: Tensor) => rotate(this.#step, layer, y, this.#positions)
    const some = lazily({
      x: () => x,
      q: () => this.#headsOf(layer.q, { x, of: () => all.q, heads, perHead: shape.nHead / shape.nHeadKv }),
      k: () => this.#headsOf(layer.k, { x, of: () => all.k, heads, perHead: 1 }),
      v: () => all.v,
      rotatedQ: () => rotated(some.q),
      rotatedK: () => rotated(some.k),
    })
    return some
  }

  /** x f32[nEmbd, n] → f32[d, perHead · c, n], from the rows of these heads alone where they can be multiplied alone. */
  #headsOf({ weight, bias }: Linear, { x, of, heads, perHead }: Wanted): Tensor {
    const { g, shape } = this.#step
    const n = this.#part.nTokens
    const size = shape.headDim * perHead
    if (weight.isPacked || this.#step.parts.length > 1) {
      const y = of()
      const [, head, token, all] = y.nb
      const rows = g.view(y, [size, shape.nHeadKv, n, 1], [perHead * head, token, all])
      return g.reshape(g.getRows(rows, this.#constant(heads, n)), shape.headDim, perHead * heads.length, n)
    }
    const parts = runsOf(heads).map(({ first, count }) => {
      const at = first * size
      const some = g.view(
        weight,
        [weight.ne[0], count * size, 1, 1],
        [weight.nb[1], weight.nb[2], weight.nb[3]],
        at * weight.nb[1],
      )
      const y = g.mulMat(some, x)
      return bias ? g.add(y, g.view(bias, [count * size, 1, 1, 1], [bias.nb[1], bias.nb[2], bias.nb[3]], at * bias.nb[0])) : y
    })
    return g.reshape(concatAll(g, parts, 0), shape.headDim, perHead * heads.length, n)
  }

  /** i32[values.length, n], the same for every n. */
  #constant(values: readonly number[], n: number): Tensor {
    return this.#step.g.input(I32, [values.length, n], (data) => data.forEach((_, i) => (data[i] = values[i % values.length]!)))
  }
}

interface Wanted {
  /** f32[nEmbd, n] */
  readonly x: Tensor
  /** All heads, f32[d, perHead · G, n]. */
  readonly of: () => Tensor
  readonly heads: readonly number[]
  readonly perHead: number
}

/** Heads that lie one after another. */
function runsOf(heads: readonly number[]): { readonly first: number; readonly count: number }[] {
  const runs: { first: number; count: number }[] = []
  for (const head of heads) {
    const last = runs.at(-1)
    if (last && last.first + last.count === head) last.count++
    else runs.push({ first: head, count: 1 })
  }
  return runs
}
