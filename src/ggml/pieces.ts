/** A graph cut into its operations, each of which can be computed by itself, in their order. */
import koffi from 'koffi'
import type { Pointer } from './bindings.ts'
import type { Graph, Label } from './graph.ts'
import { ggml } from './library.ts'
import { isFree, type Node, nodeAt } from './node.ts'

/** One operation, or two that ggml computes as one. */
export interface Piece {
  /** `MUL_MAT`, `RMS_NORM + MUL`. */
  readonly op: string
  /** The last of them. */
  readonly node: Node
  readonly label: Label
  /** A graph of nothing else; what {@link InPieces} gives to ggml. Valid as long as the whole graph is. */
  readonly view: Uint8Array
}

/** All operations of a graph; what only looks at memory in another way is left out. */
export function piecesOf(graph: Graph): Piece[] {
  const nodes = Array.from({ length: graph.nNodes }, (_, i) => nodeAt(ggml().ggml_graph_node(graph.ptr, i)))
  const pieces: Piece[] = []
  for (let i = 0; i < nodes.length; i++) {
    const first = nodes[i]!
    if (isFree(first)) continue
    const next = nodes[i + 1]
    const isPair = next !== undefined && areFused(first, next)
    const node = isPair ? next : first
    const view = viewOf(graph.ptr, i, isPair ? i + 2 : i + 1)
    pieces.push({ op: isPair ? `${first.op} + ${next.op}` : first.op, node, label: graph.labelOf(first.ptr), view })
    if (isPair) i++
  }
  return pieces
}

/** What ggml's processor backend computes in one go, if nobody else reads what lies between (it looks itself). */
function areFused(first: Node, next: Node): boolean {
  return first.op === 'RMS_NORM' && next.op === 'MUL' && next.sources.some(({ ptr }) => ptr === first.ptr)
}

/** `struct ggml_cgraph` of the pinned version: its size, and where its members stand. */
const BYTES = 96
const N_NODES = 4
const NODES = 16
const UID = 88

/**
 * Nodes i0 … i1 - 1 of a graph as a graph, as ggml_graph_view makes it, which not every build of the library exports: all else
 * stays, for it says how often a node is read, and so what may be computed in one go.
 */
function viewOf(graph: Pointer, i0: number, i1: number): Uint8Array {
  const bytes = Uint8Array.from(koffi.decode(graph, koffi.array('uint8_t', BYTES)) as ArrayLike<number>)
  const members = new DataView(bytes.buffer)
  const nodes = members.getBigUint64(NODES, true)
  if (nodes !== ggml().ggml_graph_nodes(graph)) throw new Error('ggml_cgraph is not laid out as it was')
  members.setInt32(N_NODES, i1 - i0, true)
  members.setBigUint64(NODES, nodes + 8n * BigInt(i0), true)
  members.setBigUint64(UID, 0n, true)
  return bytes
}
