import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { attentionFor } from '../../src/attention/spec.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { SequenceCache } from '../../src/kv/cache.ts'
import { bytesPerToken, TILE } from '../../src/kv/layout.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { normals } from '../support/random.ts'
import { mappedResidentBytes } from '../support/smaps.ts'

const SHAPE = { nHead: 4, nHeadKv: 4, headDim: 64 }

/** Anonymous resident bytes of this process. */
function residentBytes(): number {
  const line = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return Number(line![1]) * 1024
}

describe('SequenceCache', () => {
  it('costs nothing before any token, however long the context', () => {
    const shape = { arch: 'x', nLayer: 32, nEmbd: 1, nFf: 1, nVocab: 1, nCtxTrain: 1, ...SHAPE }
    const layout = attentionFor('dense', shape).layout(shape, { k: F16, v: F16 })
    const before = residentBytes()
    using cache = new SequenceCache(layout, 2 ** 20)
    expect(cache.bytesHeld).toBe(0)
    expect(residentBytes() - before).toBeLessThan(4 * 2 ** 20)
  })

  it.skipIf(process.platform !== 'linux')('holds the bytes it declares, and gives them back', async () => {
    using layer = new TestLayer('dense', SHAPE, F32)
    const nTokens = 8 * TILE
    const cache = layer.newCache(2 ** 16)
    const warm = layer.newCache(2 * TILE)
    const x = normals(N_EMBD * TILE, 5)
    await layer.attend([{ cache: warm, x }]) // scratch memory and code are there now
    const before = residentBytes()
    for (let at = 0; at < nTokens; at += TILE) await layer.attend([{ cache, x }])
    const { k, v } = cache.layers[0]!
    const declared = bytesPerToken({ layers: [{ k: k.layout, v: v.layout }] }) * nTokens
    expect(cache.bytesHeld).toBe(declared)
    // Scratch memory grows with the context too, so what the cache holds is read from the map of the process.
    expect(mappedResidentBytes(cache.address)).toBeGreaterThan(0.98 * declared)
    expect(mappedResidentBytes(cache.address)).toBeLessThan(1.02 * declared)
    cache.truncate(TILE)
    expect(mappedResidentBytes(cache.address)).toBe(cache.bytesHeld)
    cache[Symbol.dispose]()
    warm[Symbol.dispose]()
    expect(cache.bytesHeld).toBe(0)
    expect(residentBytes() - before).toBeLessThan(64 * 2 ** 20)
  })
})
