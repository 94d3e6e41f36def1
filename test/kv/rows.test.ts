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
