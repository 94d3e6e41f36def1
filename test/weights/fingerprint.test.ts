import { copyFileSync, openSync, closeSync, writeSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { fingerprint } from '../../src/weights/fingerprint.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'
import { TemporaryFolder } from '../support/reference.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

/** Of a copy of the bundled model, with another byte at `offset` of the last tensor. */
function ofCopy(offset: number | null): string {
  const path = folder.file(`copy ${offset}.gguf`)
  copyFileSync(BUNDLED_GGUF, path)
  using source = openGguf(path)
  if (offset !== null) {
    const info = [...source.tensors.values()].at(-1)!
    const file = openSync(path, 'r+')
    writeSync(file, Uint8Array.of(77), 0, 1, info.offset + (offset < 0 ? info.nBytes : 0) + offset)
    closeSync(file)
  }
  return fingerprint(source)
}

test('a fingerprint is of the weights, not of the file', () => {
  using source = openGguf(BUNDLED_GGUF)
  expect(fingerprint(source)).toMatch(/^[0-9a-f]{32}$/)
  expect(ofCopy(null)).toBe(fingerprint(source))
})

test('other data at either end of a tensor, another name, type or shape are another model', () => {
  using source = openGguf(BUNDLED_GGUF)
  const [first, ...rest] = [...source.tensors]
  const changed = (info: object) =>
    fingerprint({ ...source, tensors: new Map([[first![0], { ...first![1], ...info }], ...rest]) })
  const renamed = fingerprint({ ...source, tensors: new Map([['other', first![1]], ...rest]) })
  const all = [fingerprint(source), ofCopy(0), ofCopy(-1), renamed, changed({ type: 30 }), changed({ ne: [1, 2, 3, 4] })]
  expect(new Set(all).size).toBe(6)
})
