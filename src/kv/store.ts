/** The rows of one kind (K, V, …) of one layer: a stretch of a sequence's address space, as the tensors graphs use. */
import koffi from 'koffi'
import type { Pointer } from '../ggml/bindings.ts'
import type { Graph } from '../ggml/graph.ts'
import { ggml } from '../ggml/library.ts'
import { HUGE_PAGE_BYTES, type Reservation } from '../ggml/memory.ts'
import { rowBytes } from '../ggml/types.ts'
import { nBytes, type Shape, stridesOf, type Tensor } from '../ggml/tensor.ts'
import { headBytes, residentBytes, roundUp, storeBytes, type StoreLayout, TILE } from './layout.ts'
import type { RowMap } from './rows.ts'

export interface Place {
  /** ggml's context and buffer for the tensors of this cache, and the memory the buffer lies on. */
  readonly context: Pointer
  readonly buffer: Pointer
  readonly memory: Reservation
  /** Bytes from the start of the memory. */
  readonly offset: number
}

export class Store {
  /** Rows there is room for. */
  readonly capacity: number
  readonly #place: Place
  #layout: StoreLayout
  #tensor: Tensor
  /** Bytes per head up to which the memory was put into large pages. */
  #collapsed = 0
  #data: Uint8Array | Uint16Array | Float32Array | null = null

  /** `capacity` is a multiple of {@link CAPACITY_STEP}. */
  constructor(layout: StoreLayout, capacity: number, place: Place) {
    this.#layout = layout
    this.capacity = layout.fixed ?? capacity
    this.#place = place
    this.#tensor = this.#described()
  }

  get layout(): StoreLayout {
    return this.#layout
  }

  /** `rows`: `[width, capacity, nHead]`; `columns`: `[TILE, width, capacity / TILE, nHead]`. */
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
    const used = width * (fixed ?? (order === 'columns' ? roundUp(nRows, TILE) : nRows))
    for (const [to, head] of heads.entries()) {
      if (to !== head) data.copyWithin(to * perHead, head * perHead, head * perHead + used)
    }
    const kept = { ...this.#layout, nHead: heads.length }
    const { memory, offset } = this.#place
    memory.discard(offset + storeBytes(kept, this.capacity), offset + storeBytes(this.#layout, this.capacity))
    this.#layout = kept
    this.#tensor = this.#described()
    this.#data = null
  }

  #described(): Tensor {
    const { width, nHead, type, order } = this.#layout
    const ne: Shape = order === 'rows' ? [width, this.capacity, nHead, 1] : [TILE, width, this.capacity / TILE, nHead]
    const { context, buffer, memory, offset } = this.#place
    const ptr = ggml().ggml_new_tensor_4d(context, type, ...ne)
    ggml().ggml_backend_tensor_alloc(buffer, ptr, memory.at + BigInt(offset))
    return { ptr, type, ne, nb: stridesOf(type, ne) }
  }

  /** Indices per token in what {@link write} takes. */
  get slotsPerToken(): number {
    return this.layout.order === 'rows' ? 1 : this.layout.width
  }

  /**
   * Where the next tokens of `maps` go: i32`[n · slotsPerToken, maps.length]`, for one map that serves all heads or for one
   * per head.
   */
  slots(slots: Int32Array, maps: readonly RowMap[]): void {
    const { order, width } = this.layout
    const perMap = slots.length / maps.length
    for (const [head, map] of maps.entries()) {
      const at = head * perMap
      if (order === 'rows') {
        for (let i = 0; i < perMap; i++) slots[at + i] = map.nextRow(i)
        continue
      }
      for (let i = 0; i < perMap; i += width) {
        const first = slotOf(map.nextRow(i / width), width)
        for (let c = 0; c < width; c++) slots[at + i + c] = first + c * TILE
      }
    }
  }

  /** Writes `x` f32`[width, nHead, n]` to `slots`; expanded at once, so that later reads of the graph see it. */
  write(g: Graph, x: Tensor, slots: Tensor): void {
    const rows = g.permute(x, 0, 2, 1, 3) // [width, n, nHead]
    if (this.layout.order === 'rows') {
      g.expand(g.setRows(this.tensor, rows, slots))
      return
    }
    // A token's column is scattered element by element: as rows of one element.
    const { width, nHead } = this.layout
    const into = g.reshape(this.tensor, 1, width * this.capacity, nHead)
    const inOrder = x.ne[2] === 1 ? x : g.cont(rows) // one token's heads lie in order as they are
    g.expand(g.setRows(into, g.reshape(inOrder, 1, width * x.ne[2], nHead), slots))
  }

  /** The first `nRows` tokens as rows: `[width, nRows, nHead]`; stored columns are transposed into a copy. */
  rows(g: Graph, nRows: number): Tensor {
    const { width, nHead } = this.layout
    if (this.layout.order === 'rows') {
      return g.view(this.tensor, [width, nRows, nHead, 1], [this.tensor.nb[1], this.tensor.nb[2], this.tensor.nb[3]])
    }
    const padded = roundUp(nRows, TILE)
    const all = g.reshape(g.cont(g.permute(this.columns(g, padded), 1, 0, 2, 3)), width, padded, nHead)
    return g.view(all, [width, nRows, nHead, 1], [all.nb[1], all.nb[2], all.nb[3]])
  }

  /**
   * The first `nRows` tokens (a multiple of TILE) as tiles of columns: `[TILE, width, nRows / TILE, nHead]`; stored rows are
   * transposed into a copy.
   */
  columns(g: Graph, nRows: number): Tensor {
    const { width, nHead, order } = this.layout
    if (order === 'columns') {
      const { nb } = this.tensor
      return g.view(this.tensor, [TILE, width, nRows / TILE, nHead], [nb[1], nb[2], nb[3]])
    }
    const [, row, head] = this.tensor.nb
    const tiles = g.view(this.tensor, [width, TILE, nRows / TILE, nHead], [row, TILE * row, head])
    return g.cont(g.permute(tiles, 1, 0, 2, 3))
  }

  /** The first `n` tokens of tile `i`: `[n, width, 1, nHead]`. Stored columns only. */
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
    const filled = rowBytes(type, width) * (order === 'columns' ? nRows - (nRows % TILE) : nRows)
    if (fixed !== undefined || filled < this.#collapsed + HUGE_PAGE_BYTES) return
    const perHead = headBytes(this.layout, this.capacity)
    for (let head = 0; head < nHead; head++) {
      const start = this.#place.offset + head * perHead
      // Heads begin anywhere within a page: the page in which the last call ended is whole now.
      this.#place.memory.collapse(start + Math.max(0, this.#collapsed - HUGE_PAGE_BYTES), start + filled)
    }
    this.#collapsed = filled
  }

  /** Gives back the pages that only rows from `nRows` on have used. */
  discardFrom(nRows: number): void {
    if (this.layout.fixed !== undefined) return
    this.#collapsed = 0
    const perHead = headBytes(this.layout, this.capacity)
    for (let head = 0; head < this.layout.nHead; head++) {
      const start = this.#place.offset + head * perHead
      this.#place.memory.discard(start + headBytes(this.layout, nRows), start + perHead)
    }
  }

  /** The memory itself, as elements of the type's size. Only between computations. */
  data(): Uint8Array | Uint16Array | Float32Array {
    return (this.#data ??= this.#view())
  }

  #view(): Uint8Array | Uint16Array | Float32Array {
    const memory = koffi.view(this.#place.memory.at + BigInt(this.#place.offset), nBytes(this.tensor))
    const element = this.tensor.nb[0]
    return element === 4 ? new Float32Array(memory) : element === 2 ? new Uint16Array(memory) : new Uint8Array(memory)
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
      const [source, target] = [base + slotOf(row, width), base + slotOf(to, width)]
      for (let c = 0; c < width; c++) data[target + c * TILE] = data[source + c * TILE]!
    }
  }
}

/** The first element of a token's column. */
function slotOf(row: number, width: number): number {
  return Math.floor(row / TILE) * TILE * width + (row % TILE)
}
