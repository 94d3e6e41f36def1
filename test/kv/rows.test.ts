import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RowMap } from '../../src/kv/rows.ts'

describe('RowMap', () => {
  it('is the identity until something is evicted', () => {
    const rows = new RowMap()
    rows.append(5)
    expect([rows.isIdentity, rows.nRows, rows.nSeen, rows.position(3)]).toEqual([true, 5, 5, 3])
  })

  it('keeps positions apart from rows, whatever is appended and evicted', () => {
    const steps = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.array(fc.boolean(), { maxLength: 40 })), { maxLength: 12 })
    fc.assert(
      fc.property(steps, (list) => {
        const rows = new RowMap()
        let model: number[] = []
        let next = 0
        for (const [n, keep] of list) {
          rows.append(n)
          for (let i = 0; i < n; i++) model.push(next++)
          const kept = [...model.keys()].filter((row) => keep[row] ?? true)
          rows.keep(kept)
          model = kept.map((row) => model[row]!)
          expect(model.map((_, row) => rows.position(row))).toEqual(model)
          expect([rows.nRows, rows.nSeen]).toEqual([model.length, next])
          rows.checkIntegrity()
        }
      }),
    )
  })

  it('keeps positions in order and takes free rows first, whatever comes, is dropped and is kept', () => {
    const step = fc.oneof(
      fc.record({ append: fc.integer({ min: 1, max: 9 }) }),
      fc.record({ drop: fc.nat() }),
      fc.record({ keep: fc.array(fc.boolean(), { maxLength: 40 }) }),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const rows = new RowMap()
        let model: number[] = [] // positions that are held, ascending
        let stored = new Map<number, number>() // row → position, moved as a store would
        for (const step of steps) {
          const before = { highWater: rows.highWater, nFree: rows.highWater - rows.nRows }
          if ('append' in step) {
            const taken = Array.from({ length: step.append }, (_, i) => rows.nextRow(i))
            for (const [i, row] of taken.entries()) {
              expect(stored.has(row)).toBe(false)
              stored.set(row, rows.nSeen + i)
              model.push(rows.nSeen + i)
            }
            rows.append(step.append)
            expect(rows.highWater).toBe(before.highWater + Math.max(0, step.append - before.nFree))
          } else if ('drop' in step) {
            if (model.length === 0) continue
            const rank = step.drop % model.length
            stored.delete(rows.row(rank))
            rows.drop(rank)
            model.splice(rank, 1)
            expect([rows.highWater, rows.nextRow(0) < rows.highWater]).toEqual([before.highWater, true])
          } else {
            const ranks = [...model.keys()].filter((rank) => step.keep[rank] ?? true)
            const from = rows.keep(ranks)
            expect([...from]).toEqual([...from].sort((a, b) => a - b))
            stored = new Map(Array.from(from, (row, i) => [i, stored.get(row)!]))
            model = ranks.map((rank) => model[rank]!)
            expect(rows.highWater).toBe(rows.nRows)
          }
          expect(model.map((_, rank) => rows.position(rows.row(rank)))).toEqual(model)
          for (const [row, position] of stored) expect(rows.position(row)).toBe(position)
          expect(rows.nRows).toBe(model.length)
          rows.checkIntegrity()
        }
      }),
    )
  })

  it('refuses to truncate what it has compacted', () => {
    const rows = new RowMap()
    rows.append(4)
    rows.truncate(3)
    expect(rows.nSeen).toBe(3)
    rows.keep([0, 2])
    expect(() => rows.truncate(1)).toThrow('compacted')
  })

  it('refuses rows that are not ascending', () => {
    const rows = new RowMap()
    rows.append(4)
    expect(() => rows.keep([2, 1])).toThrow('position')
  })
})
