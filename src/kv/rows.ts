/**
 * Which position each stored row holds, for one layer and KV head. Until something is evicted, row i is position i and
 * nothing is kept; afterwards the positions stand in a list, ascending. RoPE and masks ask for positions, storage for rows.
 */
export class RowMap {
  /** Rows in use. */
  nRows = 0
  /** Positions seen so far, evicted ones included: the next token's position. */
  nSeen = 0
  #positions: number[] | null = null

  /** True while row i is position i. */
  get isIdentity(): boolean {
    return this.#positions === null
  }

  position(row: number): number {
    return this.#positions === null ? row : this.#positions[row]!
  }

  /** The next `n` positions take the next `n` rows. */
  append(n: number): void {
    if (this.#positions !== null) for (let i = 0; i < n; i++) this.#positions.push(this.nSeen + i)
    this.nRows += n
    this.nSeen += n
  }

  /** Keeps only `rows` (ascending); they are renumbered from 0, and whoever stores them moves them accordingly. */
  keep(rows: readonly number[]): void {
    this.#positions = rows.map((row) => this.position(row))
    this.nRows = rows.length
    this.checkIntegrity()
  }

  /** Forgets the newest rows, down to `n`. Only a map that never evicted can: others have lost what is asked for. */
  truncate(n: number): void {
    if (!this.isIdentity) throw new Error('a compacted cache cannot be truncated')
    if (n > this.nRows) throw new RangeError(`cannot truncate ${this.nRows} rows to ${n}`)
    this.nRows = n
    this.nSeen = n
  }

  checkIntegrity(): void {
    const positions = this.#positions
    if (positions === null) {
      if (this.nRows !== this.nSeen) throw new Error(`identity map: ${this.nRows} rows for ${this.nSeen} positions`)
      return
    }
    if (positions.length !== this.nRows) throw new Error(`${positions.length} positions for ${this.nRows} rows`)
    for (const [row, position] of positions.entries()) {
      const before = row === 0 ? -1 : positions[row - 1]!
      if (position <= before || position >= this.nSeen) throw new Error(`row ${row} holds position ${position} after ${before}`)
    }
  }
}
