/**
 * Which position each stored row holds, for one layer and KV head. Until something is dropped, row i is position i and
 * nothing is kept here; afterwards rows that were dropped are free, and new tokens take them first. RoPE and masks ask for
 * positions, storage for rows.
 */
export interface RowMapState {
  readonly nSeen: number
  readonly nRows: number
  readonly highWater: number
  /** Null while row i is position i; then {@link RowMap} keeps nothing else. */
  readonly order: readonly number[] | null
  readonly positions: readonly number[]
  readonly free: readonly number[]
}

export class RowMap {
  /** Positions seen so far, dropped ones included: the next token's position. */
  nSeen = 0
  /** Rows that hold a token. */
  nRows = 0
  /** Rows touched: those in use and the free ones between them. */
  highWater = 0
  /** Rows by ascending position, and the position of each row (-1 is free); null while both are the identity. */
  #order: number[] | null = null
  #positions: number[] = []
  #free: number[] = []

  /** True while row i is position i. */
  get isIdentity(): boolean {
    return this.#order === null
  }

  /** The position a row holds, or -1. */
  position(row: number): number {
    return this.#order === null ? row : this.#positions[row]!
  }

  /** The row with the `rank`-th smallest position. */
  row(rank: number): number {
    return this.#order === null ? rank : this.#order[rank]!
  }

  /** The row that the token `i` places ahead will take. */
  nextRow(i: number): number {
    const nFree = this.#free.length
    return i < nFree ? this.#free[nFree - 1 - i]! : this.highWater + i - nFree
  }

  /** The next `n` positions take the next rows. */
  append(n: number): void {
    if (this.#order === null) {
      this.highWater += n
    } else {
      for (let i = 0; i < n; i++) {
        const row = this.nextRow(0)
        if (this.#free.length > 0) this.#free.pop()
        else this.highWater++
        this.#positions[row] = this.nSeen + i
        this.#order.push(row)
      }
    }
    this.nRows += n
    this.nSeen += n
  }

  /** Frees the row with the `rank`-th smallest position; O(rows). */
  drop(rank: number): void {
    const order = this.#own()
    const [row] = order.splice(rank, 1)
    if (row === undefined) throw new RangeError(`no row of rank ${rank} among ${this.nRows}`)
    this.#positions[row] = -1
    this.#free.push(row)
    this.nRows--
  }

  /**
   * Keeps only the rows with these `ranks` (ascending) and numbers them from 0 in the order they are stored. Gives the old row
   * of each new one, ascending, for whoever stores them to move in place.
   */
  keep(ranks: ArrayLike<number>): Int32Array {
    const rows = Int32Array.from(ranks, (rank) => this.row(rank))
    const from = rows.slice().sort()
    const moved = new Int32Array(this.highWater)
    for (const [row, old] of from.entries()) moved[old] = row
    this.#positions = Array.from(from, (row) => this.position(row))
    this.#order = Array.from(rows, (row) => moved[row]!)
    this.#free = []
    this.nRows = rows.length
    this.highWater = rows.length
    this.checkIntegrity()
    return from
  }

  /** Forgets the newest rows, down to `n`. Only a map that never dropped any can: others have lost what is asked for. */
  truncate(n: number): void {
    if (!this.isIdentity) throw new Error('a compacted cache cannot be truncated')
    if (n > this.nRows) throw new RangeError(`cannot truncate ${this.nRows} rows to ${n}`)
    this.nRows = n
    this.highWater = n
    this.nSeen = n
  }

  get state(): RowMapState {
    const { nSeen, nRows, highWater } = this
    return {
      nSeen,
      nRows,
      highWater,
      order: this.#order?.slice() ?? null,
      positions: [...this.#positions],
      free: [...this.#free],
    }
  }

  /** Becomes a map of such a state. Errors: an ordinary Error for books that do not agree with themselves. */
  set state({ nSeen, nRows, highWater, order, positions, free }: RowMapState) {
    Object.assign(this, { nSeen, nRows, highWater })
    this.#order = order === null ? null : [...order]
    this.#positions = [...positions]
    this.#free = [...free]
    this.checkIntegrity()
  }

  checkIntegrity(): void {
    const order = this.#order
    if (order === null) {
      if (this.nRows !== this.nSeen || this.highWater !== this.nSeen)
        throw new Error(`identity map of ${this.nRows} rows for ${this.nSeen}`)
      return
    }
    if (order.length !== this.nRows || this.nRows + this.#free.length !== this.highWater) {
      throw new Error(`${order.length} ordered, ${this.nRows} used and ${this.#free.length} free rows of ${this.highWater}`)
    }
    let before = -1
    for (const row of order) {
      const position = this.#positions[row]!
      if (!(position > before && position < this.nSeen)) throw new Error(`row ${row} holds position ${position} after ${before}`)
      before = position
    }
    for (const row of this.#free) if (this.#positions[row] !== -1) throw new Error(`free row ${row} holds a position`)
  }

  #own(): number[] {
    this.#order ??= Array.from({ length: this.nRows }, (_, i) => i)
    if (this.#positions.length < this.highWater) this.#positions = Array.from({ length: this.highWater }, (_, i) => i)
    return this.#order
  }
}
