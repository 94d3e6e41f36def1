/** The rows of one kind (K, V, …) of one layer: a stretch of a sequence's address space, as the tensors graphs use. */
import type { Graph } from '../ggml/graph.ts'
import { HUGE_PAGE_BYTES } from '../ggml/memory.ts'
import { rowBytes } from '../ggml/types.ts'
import { nBytes, type Shape, type Tensor } from '../ggml/tensor.ts'
import type { KvBuffer } from './buffer.ts'
import { headBytes, residentBytes, roundUp, storeBytes, type StoreLayout, TILE } from './layout.ts'
import type { RowMap } from './rows.ts'

export class Store {
  /** Rows there is room for. */
  readonly capacity: number
  readonly #buffer: KvBuffer
  /** Where it begins in the buffer, in bytes. */
  readonly #offset: number
  #layout: StoreLayout
  #tensor: Tensor
  /** Bytes per head up to which the memory was put into large pages. */
  #collapsed = 0
  #data: Uint8Array | Uint16Array | Float32Array | null = null

  /** `capacity` is a multiple of {@link CAPACITY_STEP}. */
  constructor(layout: StoreLayout, capacity: number, { buffer, offset }: { buffer: KvBuffer; offset: number }) {
    this.#layout = layout
    this.capacity = layout.fixed ?? capacity
    this.#buffer = buffer
    this.#offset = offset
    this.#tensor = this.#described()
  }

  get layout(): StoreLayout {
    return this.#layout
  }

  /** `rows`: `[width, capacity, nHead]`; `transposed`: `[TILE, width, capacity / TILE, nHead]`. */
  get tensor(): Tensor {
    return this.#tensor
  }

  /**
   * Keeps the rows of these heads (ascending), which become heads 0, 1, …; the others' are given back. Once per store, between
   * computations: graphs recorded before must not be computed any more.
   */
  keepHeads(heads: readonly number[], nRows: number): void {
    const data = this.data()
    const { width, order, fixed } = this.#layout
    const perHead = width * this.capacity
    const used = width * (fixed ?? (order === 'transposed' ? roundUp(nRows, TILE) : nRows))
    for (const [to, head] of heads.entries()) {
      if (to !== head) data.copyWithin(to * perHead, head * perHead, head * perHead + used)
    }
    const kept = { ...this.#layout, nHead: heads.length }
    const end = (layout: StoreLayout) => this.#offset + storeBytes(layout, this.capacity)
    this.#buffer.discard(end(kept), end(this.#layout))
    this.#layout = kept
    this.#tensor = this.#described()
    this.#data = null
  }

  #described(): Tensor {
    const { width, nHead, type, order } = this.#layout
    const ne: Shape = order === 'rows' ? [width, this.capacity, nHead, 1] : [TILE, width, this.capacity / TILE, nHead]
    return this.#buffer.tensor(type, ne, this.#offset)
  }

  /** Indices per token in what {@link write} takes. */
  get rowIndicesPerToken(): number {
    return this.layout.order === 'rows' ? 1 : this.layout.width
  }

  /**
   * Where the next tokens of `maps` go: i32`[n · rowIndicesPerToken, maps.length]`, for one map that serves all heads or for one
   * per head.
   */
  rowIndices(indices: Int32Array, maps: readonly RowMap[]): void {
    const { order, width } = this.layout
    const perMap = indices.length / maps.length
    for (const [head, map] of maps.entries()) {
      const at = head * perMap
      if (order === 'rows') {
        for (let i = 0; i < perMap; i++) indices[at + i] = map.nextRow(i)
        continue
      }
      for (let i = 0; i < perMap; i += width) {
        const first = columnOf(map.nextRow(i / width), width)
        for (let c = 0; c < width; c++) indices[at + i + c] = first + c * TILE
      }
    }
  }

  /** Writes `x` f32`[width, nHead, n]` to the rows of `indices`; expanded at once, so that later reads of the graph see it. */
  write(g: Graph, x: Tensor, indices: Tensor): void {
    const rows = g.permute(x, 0, 2, 1, 3) // [width, n, nHead]
    if (this.layout.order === 'rows') {
      g.expand(g.setRows(this.tensor, rows, indices))
      return
    }
    // A token's column is scattered element by element: as rows of one element.
    const { width, nHead } = this.layout
    const into = g.reshape(this.tensor, 1, width * this.capacity, nHead)
    const inOrder = x.ne[2] === 1 ? x : g.cont(rows) // one token's heads lie in order as they are
    g.expand(g.setRows(into, g.reshape(inOrder, 1, width * x.ne[2], nHead), indices))
  }

  /** `nRows` tokens as rows, from a whole tile on: `[width, nRows, nHead]`; transposed ones are turned back into a copy. */
  rows(g: Graph, nRows: number, from = 0): Tensor {
    const { width, nHead } = this.layout
    const { nb } = this.tensor
    if (this.layout.order === 'rows') return g.view(this.tensor, [width, nRows, nHead, 1], [nb[1], nb[2], nb[3]], from * nb[1])
    if (nRows < TILE) {
      // A short prompt would copy mostly what is empty
      return g.reshape(g.cont(g.permute(this.startOfTile(g, from / TILE, nRows), 1, 0, 2, 3)), width, nRows, nHead)
    }
    const padded = roundUp(nRows, TILE)
    const all = g.reshape(g.cont(g.permute(this.tiles(g, padded, from), 1, 0, 2, 3)), width, padded, nHead)
    return g.view(all, [width, nRows, nHead, 1], [all.nb[1], all.nb[2], all.nb[3]])
  }

  /**
   * `nRows` tokens (a multiple of TILE) as transposed tiles, from a whole tile on: `[TILE, width, nRows / TILE, nHead]`; stored
   * rows are transposed into a copy.
   */
  tiles(g: Graph, nRows: number, from = 0): Tensor {
    const { width, nHead, order } = this.layout
    const { nb } = this.tensor
    if (order === 'transposed') {
      return g.view(this.tensor, [TILE, width, nRows / TILE, nHead], [nb[1], nb[2], nb[3]], (from / TILE) * nb[2])
    }
    const tiles = g.view(this.tensor, [width, TILE, nRows / TILE, nHead], [nb[1], TILE * nb[1], nb[2]], from * nb[1])
    return g.cont(g.permute(tiles, 1, 0, 2, 3))
  }

  /** The first `n` tokens of tile `i`: `[n, width, 1, nHead]`. Transposed stores only. */
  startOfTile(g: Graph, i: number, n: number): Tensor {
    const { nb } = this.tensor
    return g.view(this.tensor, [n, this.layout.width, 1, this.layout.nHead], [nb[1], nb[2], nb[3]], i * nb[2])
  }

  bytesHeld(nRows: number): number {
    return residentBytes(this.layout, nRows)
  }

  /** Rows before `nRows` are written: what they fill goes into pages of 2 MiB. */
  filledTo(nRows: number): void {
    const { fixed, type, width, order, nHead } = this.layout
    const filled = rowBytes(type, width) * (order === 'transposed' ? nRows - (nRows % TILE) : nRows)
    if (fixed !== undefined || filled < this.#collapsed + HUGE_PAGE_BYTES) return
    const perHead = headBytes(this.layout, this.capacity)
    for (let head = 0; head < nHead; head++) {
      const start = this.#offset + head * perHead
      // Heads begin anywhere within a page: the page in which the last call ended is whole now.
      this.#buffer.collapse(start + Math.max(0, this.#collapsed - HUGE_PAGE_BYTES), start + filled)
    }
    this.#collapsed = filled
  }

  /** Gives back the pages that only rows from `nRows` on have used. */
  discardFrom(nRows: number): void {
    if (this.layout.fixed !== undefined) return
    this.#collapsed = 0
    const perHead = headBytes(this.layout, this.capacity)
    for (let head = 0; head < this.layout.nHead; head++) {
      const start = this.#offset + head * perHead
      this.#buffer.discard(start + headBytes(this.layout, nRows), start + perHead)
    }
  }

  /** The memory itself, as elements of the type's size. Only between computations. */
  data(): Uint8Array | Uint16Array | Float32Array {
    return (this.#data ??= this.#view())
  }

  #view(): Uint8Array | Uint16Array | Float32Array {
    const memory = this.#buffer.view(this.#offset, nBytes(this.tensor))
    const element = this.tensor.nb[0]
    return element === 4 ? new Float32Array(memory) : element === 2 ? new Uint16Array(memory) : new Uint8Array(memory)
  }

  /** The bytes that `nRows` tokens fill, head by head; those of another store of this layout lie in the same order. */
  used(nRows: number): Uint8Array[] {
    const { type, width, order, nHead, fixed } = this.#layout
    const perRow = rowBytes(type, width)
    const perHead = perRow * (fixed ?? this.capacity)
    const bytes = perRow * (fixed ?? (order === 'transposed' ? roundUp(nRows, TILE) : nRows))
    if (bytes === 0) return []
    return Array.from({ length: nHead }, (_, head) => new Uint8Array(this.#buffer.view(this.#offset + head * perHead, bytes)))
  }

  /** Row `from[i]` of a head becomes row i. `from` is ascending, so nothing is overwritten before it has moved. */
  compact(head: number, from: Int32Array): void {
    const data = this.data()
    const { width, order } = this.layout
    const base = head * width * this.capacity
    for (const [to, row] of from.entries()) {
      if (row === to) continue
      if (order === 'rows') {
        data.copyWithin(base + to * width, base + row * width, base + (row + 1) * width)
        continue
      }
      const [source, target] = [base + columnOf(row, width), base + columnOf(to, width)]
      for (let c = 0; c < width; c++) data[target + c * TILE] = data[source + c * TILE]!
    }
  }
}

/** The first element of a token's column. */
function columnOf(row: number, width: number): number {
  return Math.floor(row / TILE) * TILE * width + (row % TILE)
}
