/** A layer's attention where one head of every cluster attends, and the others use its probabilities with their own values. */
import type { Tensor } from '../../../ggml/tensor.ts'
import { pickBlocks } from '../../../nn/linear.ts'
import type { Chunk } from '../../chunk.ts'
import { FLASH_QUERIES } from '../../kernels/read-densely.ts'
import { concatAll, ungroupHeads } from '../../kernels/heads.ts'
import { softmax } from '../../kernels/softmax.ts'
import { applyValues } from '../../kernels/values.ts'
import type { AttentionLayer, BaseAttention, KvView, Projected } from '../../method.ts'
import { rotating } from '../../projected.ts'
import type { HeadClusters } from './head-clusters.ts'

export class ClusteredRead {
  readonly #chunk: Chunk
  readonly #base: BaseAttention

  constructor(chunk: Chunk, base: BaseAttention) {
    this.#chunk = chunk
    this.#base = base
  }

  /** f32[dV · H, n] */
  attend(layer: AttentionLayer, all: Projected, clusters: HeadClusters): Tensor {
    const base = this.#base
    const some = this.#representatives(layer, clusters)
    const projected = this.#project(layer, all, clusters)
    base.store(some, projected)
    const view = base.view(some, projected)
    if (base.isPlain && this.#chunk.nTokens >= FLASH_QUERIES) return this.#flash(layer, view, clusters)
    return this.#spread(layer, view, { p: this.#probabilities(view, projected), clusters })
  }

  /** The layer as if it had no heads but the representatives. */
  #representatives(layer: AttentionLayer, { heads }: HeadClusters): AttentionLayer {
    const { g } = this.#chunk
    const nHead = heads.length * groupSize(layer)
    const { sinks: all } = layer
    const sinks = all && g.reshape(pickBlocks(g, g.reshape(all, groupSize(layer), layer.nHeadKv), heads), nHead)
    return { ...layer, nHead, nHeadKv: heads.length, sinks }
  }

  /** Their queries and keys, and the values of all heads. */
  #project(layer: AttentionLayer, all: Projected, { heads }: HeadClusters): Projected {
    const { g, isAlone, positions } = this.#chunk
    const group = groupSize(layer)
    // What other chunks of the step project too is there already: heads are picked.
    const project = (which: 'q' | 'k', some: readonly number[]) =>
      isAlone ? layer.project(g, all.x, which, some) : pickBlocks(g, all[which], some)
    return rotating(
      g,
      { layer, positions },
      {
        x: () => all.x,
        q: () =>
          project(
            'q',
            heads.flatMap((head) => Array.from({ length: group }, (_, i) => head * group + i)),
          ),
        k: () => project('k', heads),
        v: () => all.v,
      },
    )
  }

  /** f32[nKv, n · g, c] */
  #probabilities(view: KvView, projected: Projected): Tensor {
    const { g, nTokens: n } = this.#chunk
    return softmax(g, view.layer, this.#base.scores(view, projected), { mask: view.mask, n })
  }

  /** The probabilities of clusters, with the values of all their members. */
  #spread(layer: AttentionLayer, view: KvView, { p, clusters }: { p: Tensor; clusters: HeadClusters }): Tensor {
    const { g, nTokens } = this.#chunk
    const [m, rows, c] = p.ne
    const { of } = clusters
    const each = g.reshape(pickBlocks(g, g.reshape(p, m * rows, c), of), m, rows, of.length)
    return ungroupHeads(g, layer, applyValues(g, layer, each, view), nTokens)
  }

  /** One pass per cluster: the members' values side by side are the values of its representative. */
  #flash({ nHead: H, nHeadKv: G }: AttentionLayer, view: KvView, { heads, of }: HeadClusters): Tensor {
    const { g, nTokens: n } = this.#chunk
    const { layer, q, k, mask, nKv } = view
    const group = H / G
    const values = view.v.rows(g, nKv, view.from)
    const d = values.ne[0]
    const ofHead = (x: Tensor, head: number) => g.view(x, [x.ne[0], nKv, 1, 1], [x.nb[1], x.nb[2], x.nb[3]], head * x.nb[2])
    const outputs: Tensor[] = [] // of each KV head, f32[dV, g, 1, n]
    for (let cluster = 0; cluster < heads.length; cluster++) {
      const members = [...of.keys()].filter((head) => of[head] === cluster)
      const beside = concatAll(
        g,
        members.map((head) => ofHead(values, head)),
        0,
      )
      const queries = g.view(q, [q.ne[0], group, n, 1], [q.nb[1], q.nb[2], q.nb[3]], cluster * group * q.nb[1])
      const { sinks: all } = layer
      const sinks = all && g.view(all, [group, 1, 1, 1], [all.nb[1], all.nb[2], all.nb[3]], cluster * group * all.nb[0])
      const o = g.flashAttnExt(g.permute(queries, 0, 2, 1, 3), ofHead(k, cluster), beside, mask, { ...layer, sinks })
      for (const [i, head] of members.entries()) {
        outputs[head] = g.view(o, [d, group, 1, n], [o.nb[1], o.nb[2], o.nb[2]], i * d * o.nb[0])
      }
    }
    return g.reshape(concatAll(g, outputs, 2), d * H, n)
  }
}

/** Query heads of a KV head. */
function groupSize({ nHead, nHeadKv }: AttentionLayer): number {
  return nHead / nHeadKv
}
