import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { KvCache } from '../../src/kv/cache.ts'
import { TILE } from '../../src/kv/layout.ts'
import { RowMap } from '../../src/kv/rows.ts'
import type { Store } from '../../src/kv/store.ts'
import { mappedResidentBytes } from '../support/smaps.ts'

const WIDTH = 3
const N_HEAD = 2

/** Where element `c` of a row lies, as layout.ts says. */
function at({ layout, capacity }: Store, head: number, row: number, c: number): number {
  const first = head * WIDTH * capacity
  if (layout.order === 'rows') return first + row * WIDTH + c
  return first + Math.floor(row / TILE) * TILE * WIDTH + c * TILE + (row % TILE)
}

function fill(store: Store, head: number, row: number, token: number): void {
  for (let c = 0; c < WIDTH; c++) store.data()[at(store, head, row, c)] = token * WIDTH + c
}

function tokenAt(store: Store, head: number, row: number): number {
  const read = Array.from({ length: WIDTH }, (_, c) => store.data()[at(store, head, row, c)]! - c)
  expect(new Set(read).size).toBe(1)
  return read[0]! / WIDTH
}

const order = fc.constantFrom('rows' as const, 'transposed' as const)
const type = fc.constantFrom(F32, F16)
const newStores = (orders: 'rows' | 'transposed', of: number) => {
  const store = { width: WIDTH, nHead: N_HEAD, type: of, order: orders }
  return new KvCache({ layers: [{ k: store, v: store }] }, 2 * TILE)
}

describe('Store', () => {
  it('moves the rows of one head together, in rows and in columns', () => {
    const rows = fc.uniqueArray(fc.nat(2 * TILE - 1), { maxLength: 300 })
    fc.assert(
      fc.property(order, type, fc.nat(N_HEAD - 1), rows, (orders, of, head, kept) => {
        using cache = newStores(orders, of)
        const { k } = cache.layers[0]!
        for (let h = 0; h < N_HEAD; h++) for (let row = 0; row < 2 * TILE; row++) fill(k, h, row, row)
        const from = Int32Array.from(kept).sort()
        k.compact(head, from)
        expect(Array.from(from, (_, row) => tokenAt(k, head, row))).toEqual([...from])
        const other = 1 - head
        for (let row = 0; row < 2 * TILE; row++) expect(tokenAt(k, other, row)).toBe(row)
      }),
      { numRuns: 30 },
    )
  })

  it.each(['rows', 'transposed'] as const)('gives heads back, in %s', (orders) => {
    const layout = { width: WIDTH, nHead: 4, type: F16, order: orders }
    using cache = new KvCache({ layers: [{ k: layout, v: layout }] }, 2 * TILE)
    const { k } = cache.layers[0]!
    cache.append(5)
    for (let head = 0; head < 4; head++) for (let row = 0; row < 5; row++) fill(k, head, row, 10 * head + row)
    const before = cache.bytesHeld
    k.keepHeads([1, 3], 5)
    for (let row = 0; row < 5; row++) expect([tokenAt(k, 0, row), tokenAt(k, 1, row)]).toEqual([10 + row, 30 + row])
    expect(k.tensor.ne[orders === 'rows' ? 2 : 3]).toBe(2)
    expect(cache.bytesHeld).toBe(0.75 * before)
    if (process.platform === 'linux') expect(mappedResidentBytes(cache)).toBeLessThanOrEqual(cache.bytesHeld)
  })

  it('holds what its map says, whatever comes, is dropped and is kept', () => {
    const step = fc.oneof(
      fc.record({ append: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ drop: fc.nat(), head: fc.nat(N_HEAD - 1) }),
      fc.record({ keep: fc.array(fc.boolean(), { maxLength: 80 }) }),
    )
    fc.assert(
      fc.property(order, type, fc.array(step, { maxLength: 20 }), (orders, of, steps) => {
        using cache = newStores(orders, of)
        const { k } = cache.layers[0]!
        const maps = Array.from({ length: N_HEAD }, () => new RowMap())
        for (const step of steps) {
          for (const [head, map] of maps.entries()) {
            if ('append' in step) {
              if (map.highWater + step.append > 2 * TILE) continue
              for (let i = 0; i < step.append; i++) fill(k, head, map.nextRow(i), map.nSeen + i)
              map.append(step.append)
            } else if ('drop' in step) {
              if (step.head === head && map.nRows > 0) map.drop(step.drop % map.nRows)
            } else {
              const ranks = [...Array(map.nRows).keys()].filter((rank) => step.keep[rank] ?? rank % 2 === 0)
              k.compact(head, map.keep(ranks))
            }
            map.checkIntegrity()
            for (let rank = 0; rank < map.nRows; rank++) {
              expect(tokenAt(k, head, map.row(rank))).toBe(map.position(map.row(rank)))
            }
          }
        }
      }),
      { numRuns: 60 },
    )
  })
})
