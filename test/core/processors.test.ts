import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { mkdirSync, writeFileSync } from 'node:fs'
import { busySeconds } from '../../src/core/processors.ts'
import { TemporaryFolder } from '../support/reference.ts'

describe('how busy the processors were', () => {
  let folder: TemporaryFolder
  beforeEach(() => {
    folder = new TemporaryFolder()
    mkdirSync(folder.file('proc'))
    writeFileSync(
      folder.file('proc/stat'),
      'cpu  300 30 60 9000 90 3 3 30 0 0\ncpu0 100 10 20 3000 30 1 1 10 0 0\ncpu1 200 20 40 6000 60 2 2 20 0 0\nintr 1 2\n',
    )
  })
  afterEach(() => folder[Symbol.dispose]())

  test('by all but idleness and waiting for disks', () => {
    expect(busySeconds([0, 1], folder.file(''))).toBeCloseTo(4.26)
  })

  test('only those that we may use', () => {
    expect(busySeconds([1], folder.file(''))).toBeCloseTo(2.84)
  })
})
