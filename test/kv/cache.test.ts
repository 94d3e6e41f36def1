import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { dense } from '../../src/attention/dense.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { SequenceCache } from '../../src/kv/cache.ts'
import { bytesPerToken, TILE } from '../../src/kv/layout.ts'
import { N_EMBD, TestLayer } from '../support/attention-layer.ts'
import { normals } from '../support/random.ts'

const SHAPE = { nHead: 4, nHeadKv: 4, headDim: 64 }

/** Anonymous resident bytes of this process. */
function residentBytes(): number {
  const line = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return Number(line![1]) * 1024
}

describe('SequenceCache', () => {
  it('costs nothing before any token, however long the context', () => {
    const layout = dense.layout(
      { arch: 'x', nLayer: 32, nEmbd: 1, nFf: 1, nVocab: 1, nCtxTrain: 1, ...SHAPE },
      { k: F16, v: F16 },
    )
    const before = residentBytes()
    using cache = new SequenceCache(layout, 2 ** 20)
    expect(cache.bytesHeld).toBe(0)
    expect(residentBytes() - before).toBeLessThan(4 * 2 ** 20)
  })

  it.skipIf(process.platform !== 'linux')('holds the bytes it declares, and gives them back', async () => {
    using layer = new TestLayer(dense, SHAPE, F32)
    const nTokens = 8 * TILE
    const cache = layer.newCache(2 ** 16)
    const warm = layer.newCache(TILE)
    const x = normals(N_EMBD * TILE, 5)
    await layer.attend([{ cache: warm, x }]) // scratch memory and code are there now
    const before = residentBytes()
    for (let at = 0; at < nTokens; at += TILE) await layer.attend([{ cache, x }])
    const { k, v } = cache.layers[0]!
    const declared = bytesPerToken({ layers: [{ k: k.layout, v: v.layout }] }) * nTokens
    expect(cache.bytesHeld).toBe(declared)
    // Scratch memory grows with the context too, so what the cache holds is read from the map of the process.
    expect(mappedResidentBytes(cache)).toBeGreaterThan(0.98 * declared)
    expect(mappedResidentBytes(cache)).toBeLessThan(1.02 * declared)
    cache.truncate(TILE)
    expect(mappedResidentBytes(cache)).toBe(cache.bytesHeld)
    cache[Symbol.dispose]()
    warm[Symbol.dispose]()
    expect(cache.bytesHeld).toBe(0)
    expect(residentBytes() - before).toBeLessThan(64 * 2 ** 20)
  })
})

/** Rss of the mapping that the cache lies in, as the kernel counts it. */
function mappedResidentBytes(cache: SequenceCache): number {
  const address = cache.address.toString(16)
  const maps = readFileSync('/proc/self/smaps', 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
  const found = maps.find((map) => {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(map) ?? []
    return from !== undefined && BigInt(`0x${from}`) <= BigInt(`0x${address}`) && BigInt(`0x${address}`) < BigInt(`0x${to}`)
  })
  return Number(/^Rss:\s+(\d+) kB/m.exec(found!)![1]) * 1024
}
