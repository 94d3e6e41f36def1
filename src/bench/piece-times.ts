/** Times of every operation of graphs that are computed again and again, piece by piece. A lap is what is repeated: one or more graphs. */
import { STATUS_SUCCESS } from '../ggml/backend.ts'
import type { Graph, Label } from '../ggml/graph.ts'
import { type Piece, piecesOf } from '../ggml/pieces.ts'
import { PieceCost } from './piece-cost.ts'
import { median } from './statistics.ts'
import { shapeClass, type Work, workOf } from './work.ts'

/** An operation of a lap. */
export interface PieceTime extends Label, Work {
  readonly op: string
  readonly shape: string
  /** Its median time, less what computing anything by itself costs. */
  readonly seconds: number
}

interface Kept {
  readonly piece: Piece
  readonly samples: number[]
}

export class PieceTimes implements Disposable {
  readonly #cost = new PieceCost()
  readonly #cuts = new WeakMap<Graph, readonly Piece[]>()
  /** By what it is: the n-th operation of this name in this part of this layer, in this graph of a lap. */
  readonly #kept = new Map<string, Kept>()
  #nLaps = 0
  #nGraphs = 0

  /** Seconds that every piece costs, whatever it computes. */
  get costSeconds(): number {
    return this.#cost.seconds
  }

  beginLap(): void {
    this.#nLaps++
    this.#nGraphs = 0
  }

  /** Computes a graph piece by piece; an {@link InPieces} for the backend. */
  readonly compute = (graph: Graph, compute: (view: Uint8Array) => number): number => {
    const pieces = this.#cut(graph)
    const seconds = new Float64Array(pieces.length)
    this.#cost.sample(compute)
    for (const [i, { view }] of pieces.entries()) {
      const start = performance.now()
      const status = compute(view)
      seconds[i] = (performance.now() - start) / 1000
      if (status !== STATUS_SUCCESS) return status
    }
    this.#keep(pieces, seconds)
    return STATUS_SUCCESS
  }

  /** Of a lap. What only some laps have counts for as many: graphs differ a little as a cache grows. */
  get times(): PieceTime[] {
    return [...this.#kept.values()].map(({ piece: { op, node, label }, samples }) => {
      const seconds = Math.max(0, median(samples) - this.costSeconds)
      const share = samples.length / this.#nLaps
      const { flops, bytes } = workOf(node)
      return {
        ...label,
        op,
        shape: shapeClass(node),
        seconds: seconds * share,
        flops: flops === null ? null : flops * share,
        bytes: bytes * share,
      }
    })
  }

  #cut(graph: Graph): readonly Piece[] {
    const pieces = this.#cuts.get(graph) ?? piecesOf(graph)
    this.#cuts.set(graph, pieces)
    return pieces
  }

  #keep(pieces: readonly Piece[], seconds: Float64Array): void {
    const graph = this.#nGraphs++
    const counts = new Map<string, number>()
    for (const [i, piece] of pieces.entries()) {
      const { part, il } = piece.label
      const name = `${graph} ${il} ${part} ${piece.op}`
      const n = counts.get(name) ?? 0
      counts.set(name, n + 1)
      const key = `${name} ${n}`
      const samples = this.#kept.get(key)?.samples ?? []
      samples.push(seconds[i]!)
      this.#kept.set(key, { piece, samples })
    }
  }

  [Symbol.dispose](): void {
    this.#cost[Symbol.dispose]()
  }
}
