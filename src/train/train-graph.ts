/** A graph with a backward pass: what is recorded ends in a loss, and computing it adds gradients to the parameters'. */
import type { Pointer } from '../ggml/bindings.ts'
import { Graph } from '../ggml/graph.ts'
import { nElements, type Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import { checkDifferentiable } from './differentiable.ts'
import type { Parameter } from './parameter.ts'

/** Itself, and at most eight to go back through it (a product with repeated heads: two products, two views, a sum, two additions). */
const NODES_PER_NODE = 9

/** Tensors that a forward pass may have when it is first recorded; graphs grow. */
export const FORWARD_ROOM = 1024

export class TrainGraph extends Graph {
  readonly #maxNodes: number

  /** A graph with room for what `record` makes of parameters, which are nodes too; it is recorded once to see how much that is. */
  static withRoomFor(parameters: readonly Parameter[], record: (g: Graph) => unknown): TrainGraph {
    const { graph } = Graph.record(FORWARD_ROOM, record)
    graph[Symbol.dispose]()
    return new TrainGraph(graph.nMade + parameters.length)
  }

  /** `maxForward` nodes before {@link backward}. */
  constructor(maxForward: number) {
    const maxNodes = NODES_PER_NODE * maxForward
    super(maxNodes, true)
    this.#maxNodes = maxNodes
  }

  /**
   * Ends the recording: `weight` · ∂loss/∂p is added to the gradient of every trained parameter `p`. The loss is f32[1], and an
   * output. Throws where ggml has no gradient, and for a parameter that the loss does not depend on.
   */
  backward(loss: Tensor, parameters: readonly Parameter[], weight = 1): void {
    if (nElements(loss.ne) !== 1 || loss.type !== F32) throw new Error('a loss is one f32 number')
    this.output(loss)
    const nodes = this.#nodes()
    if (nodes.length * NODES_PER_NODE > this.#maxNodes)
      throw new Error(`${nodes.length} nodes before the backward pass: more than the graph was made for`)
    const present = new Set(nodes)
    const idle = parameters.filter((p) => p.trained !== null && !present.has(p.tensor.ptr))
    if (idle.length > 0) throw new Error(`the loss does not depend on ${idle.map(({ name }) => name).join(', ')}`)
    const trained = new Map(parameters.flatMap((p) => (p.trained ? [[p.tensor.ptr, p.trained.gradient.tensor.ptr]] : [])))
    checkDifferentiable(nodes, new Set(trained.keys()))

    this.api.ggml_set_loss(loss.ptr)
    const seed = this.input(F32, [1], (data) => data.fill(weight))
    const accumulators = BigUint64Array.from(nodes, (node) => (node === loss.ptr ? seed.ptr : (trained.get(node) ?? 0n)))
    this.api.ggml_build_backward_expand(this.context, this.ptr, accumulators)
  }

  #nodes(): Pointer[] {
    return Array.from({ length: this.nNodes }, (_, i) => this.api.ggml_graph_node(this.ptr, i))
  }
}
