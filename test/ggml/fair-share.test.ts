import { describe, expect, test } from 'vitest'
import { threadsLeft } from '../../src/ggml/fair-share.ts'

describe('threads that others leave us, by the processors that we and others took', () => {
  const START = { at: 100, busy: 500, own: 20 }
  /** After `seconds` in which we took `own` and others `others` of processors' time. */
  const after = (seconds: number, own: number, others: number) => ({
    ...{ at: START.at + seconds, busy: START.busy + own + others, own: START.own + own },
  })

  test.each([
    ['alone', 2, 2, 0, 2],
    ['alone with one thread', 2, 1, 0, 2],
    ['idle', 2, 0, 0, 2],
    ['beside a few daemons', 2, 1.8, 0.2, 2],
    ['two threads beside a busy one, which gets half of a processor', 2, 1.5, 0.5, 1],
    ['one thread beside a busy one', 2, 1, 1, 1],
    ['one thread beside many', 2, 0.3, 1.7, 1],
    ['16 threads beside a busy one', 16, 15.5, 0.5, 15],
    ['15 threads beside a busy one', 16, 15, 1, 15],
    ['8 threads beside 8 on the other halves of the cores', 16, 8, 8, 8],
    ['where the system counts nobody', 2, 1, -1, 2],
  ])('%s', (_, nProcessors, own, others, expected) => {
    const left = threadsLeft(nProcessors, START, after(0.25, own / 4, others / 4))
    expect(Math.min(left, nProcessors)).toBe(expected)
  })
})
