/** The rows of one kind (K or V) of one layer: a stretch of a sequence's address space, as the tensors graphs use. */
import type { Pointer } from '../ggml/bindings.ts'
import type { Graph } from '../ggml/graph.ts'
import { ggml } from '../ggml/library.ts'
import type { Reservation } from '../ggml/memory.ts'
import { type Shape, stridesOf, type Tensor } from '../ggml/tensor.ts'
import { headBytes, residentBytes, roundUp, type StoreLayout, TILE } from './layout.ts'

export interface Place {
  /** ggml's context and buffer for the tensors of this cache, and the memory the buffer lies on. */
  readonly context: Pointer
  readonly buffer: Pointer
  readonly memory: Reservation
  /** Bytes from the start of the memory. */
  readonly offset: number
}

export class Store {
  readonly layout: StoreLayout
  readonly capacity: number
  /** `rows`: `[width, capacity, nHead]`; `columns`: `[TILE, width, capacity / TILE, nHead]`. */
  readonly tensor: Tensor
  readonly #place: Place

  /** `capacity` is a multiple of {@link TILE}. */
  constructor(layout: StoreLayout, capacity: number, place: Place) {
    this.layout = layout
    this.capacity = capacity
    this.#place = place
    const { width, nHead, type, order } = layout
    const ne: Shape = order === 'rows' ? [width, capacity, nHead, 1] : [TILE, width, capacity / TILE, nHead]
    const ptr = ggml().ggml_new_tensor_4d(place.context, type, ...ne)
    ggml().ggml_backend_tensor_alloc(place.buffer, ptr, place.memory.at + BigInt(place.offset))
    this.tensor = { ptr, type, ne, nb: stridesOf(type, ne) }
  }

  static bytes(layout: StoreLayout, capacity: number): number {
    return headBytes(layout, capacity) * layout.nHead
  }

  /** Indices per token in what {@link write} takes. */
  get slotsPerToken(): number {
    return this.layout.order === 'rows' ? 1 : this.layout.width
  }

  /** Where `slots.length / slotsPerToken` tokens go that take the rows from `row` on. */
  slots(slots: Int32Array, row: number): void {
    const { order, width } = this.layout
    if (order === 'rows') {
      for (let i = 0; i < slots.length; i++) slots[i] = row + i
      return
    }
    for (let i = 0; i < slots.length; i += width, row++) {
      const first = Math.floor(row / TILE) * TILE * width + (row % TILE)
      for (let c = 0; c < width; c++) slots[i + c] = first + c * TILE
    }
  }

  /** Writes `x` f32`[width, nHead, n]` to `slots` i32[n · slotsPerToken]; expanded at once, so that later reads of the graph see it. */
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
    const all = g.reshape(g.cont(g.permute(this.tiles(g, padded / TILE), 1, 0, 2, 3)), width, padded, nHead)
    return g.view(all, [width, nRows, nHead, 1], [all.nb[1], all.nb[2], all.nb[3]])
  }

  /** The first `nTiles` whole tiles: `[TILE, width, nTiles, nHead]`. */
  tiles(g: Graph, nTiles: number): Tensor {
    return this.#columns(g, { nRows: TILE, first: 0, nTiles })
  }

  /** The first `nRows` tokens of one tile: `[nRows, width, 1, nHead]`. */
  tile(g: Graph, index: number, nRows: number): Tensor {
    return this.#columns(g, { nRows, first: index, nTiles: 1 })
  }

  #columns(g: Graph, { nRows, first, nTiles }: { nRows: number; first: number; nTiles: number }): Tensor {
    if (this.layout.order !== 'columns') throw new Error('this store keeps rows')
    const { nb } = this.tensor
    return g.view(this.tensor, [nRows, this.layout.width, nTiles, this.layout.nHead], [nb[1], nb[2], nb[3]], first * nb[2])
  }

  bytesHeld(nRows: number): number {
    return residentBytes(this.layout, nRows) * this.layout.nHead
  }

  /** Gives back the pages that only rows from `nRows` on have used. */
  discardFrom(nRows: number): void {
    const perHead = headBytes(this.layout, this.capacity)
    for (let head = 0; head < this.layout.nHead; head++) {
      const start = this.#place.offset + head * perHead
      this.#place.memory.discard(start + residentBytes(this.layout, nRows), start + perHead)
    }
  }
}
