import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { describe, expect, it } from 'vitest'
import { attentionFor } from '../../src/attention/spec.ts'
import { layerShapes } from '../../src/core/shape.ts'
import { F16, F32 } from '../../src/ggml/types.ts'
import { KvCache } from '../../src/kv/cache.ts'
import { bytesPerToken, TILE } from '../../src/kv/layout.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { normals } from '../support/random.ts'
import { hugePageBytes, mappedResidentBytes } from '../support/smaps.ts'

const SHAPE = { nHead: 4, nHeadKv: 4, headDim: 64 }

/** Anonymous resident bytes of this process. */
function residentBytes(): number {
  const line = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return Number(line![1]) * 1024
}

/** Linux knows how to put pages together since 6.1. */
function hasHugePages(): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(process.platform === 'linux' ? release() : '0.0')!
  if (Number(major) * 100 + Number(minor) < 601) return false
  return !readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').includes('[never]')
}

describe('KvCache', () => {
  it('costs nothing before any token, however long the context', () => {
    const any = { arch: 'x', nLayer: 32, nEmbd: 1, nFf: 1, nVocab: 1, nCtxTrain: 1, ...SHAPE }
    const layout = attentionFor('dense', { ...any, layers: layerShapes(any) }).layout({ k: F16, v: F16 })
    const before = residentBytes()
    using cache = new KvCache(layout, 2 ** 20)
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
    expect(mappedResidentBytes(cache)).toBeGreaterThan(0.98 * declared)
    expect(mappedResidentBytes(cache)).toBeLessThan(1.02 * declared)
    cache.truncate(TILE)
    expect(mappedResidentBytes(cache)).toBe(cache.bytesHeld)
    cache[Symbol.dispose]()
    warm[Symbol.dispose]()
    expect(cache.bytesHeld).toBe(0)
    expect(residentBytes() - before).toBeLessThan(64 * 2 ** 20)
  })

  it.skipIf(!hasHugePages())('puts what is filled into large pages, and declares the same bytes', () => {
    const width = 64 // 16,384 rows of f16 are 2 MiB
    const store = { width, nHead: 3, type: F16, order: 'rows' } as const
    using cache = new KvCache({ layers: [{ k: store, v: { ...store, order: 'transposed' } }] }, 2 ** 16)
    const { k, v } = cache.layers[0]!
    for (let row = 0; row < 50_000; row += 1000) {
      for (const [data, perHead] of [k, v].map((s) => [s.data(), s.capacity * width] as const)) {
        for (let head = 0; head < 3; head++) data.fill(1, head * perHead + row * width, head * perHead + (row + 1000) * width)
      }
      cache.append(1000)
      // Tiles are written across their whole width, here in order: the last one may lack pages.
      expect(mappedResidentBytes(cache)).toBeLessThanOrEqual(cache.bytesHeld)
      expect(mappedResidentBytes(cache)).toBeGreaterThan(0.9 * cache.bytesHeld - 3 * 2 * TILE * width)
    }
    expect(hugePageBytes(cache)).toBeGreaterThan(0)
    cache.truncate(20_000)
    expect(mappedResidentBytes(cache)).toBe(cache.bytesHeld)
    expect(k.data()[20_000 * width - 1]).toBe(1)
    expect(k.data()[40_000 * width]).toBe(0)
  })

  it.skipIf(!hasHugePages())('gives the large pages of heads back, and goes on filling those of the others', () => {
    const width = 64
    const store = { width, nHead: 4, type: F16, order: 'rows' } as const
    using cache = new KvCache({ layers: [{ k: store, v: { ...store, order: 'transposed' } }] }, 2 ** 16)
    const { k, v } = cache.layers[0]!
    const fill = (from: number, to: number) => {
      for (const each of [k, v]) {
        const [data, perHead] = [each.data(), each.capacity * width]
        for (let head = 0; head < each.layout.nHead; head++) {
          data.fill(head + 1, head * perHead + from * width, head * perHead + to * width)
        }
      }
      cache.append(to - from)
    }
    fill(0, 40 * TILE)
    const before = cache.bytesHeld
    k.keepHeads([1, 3], cache.rows.highWater)
    expect(cache.bytesHeld).toBe(0.75 * before)
    expect(mappedResidentBytes(cache)).toBe(cache.bytesHeld)
    const huge = hugePageBytes(cache)
    fill(40 * TILE, 60 * TILE)
    expect(mappedResidentBytes(cache)).toBe(cache.bytesHeld)
    expect(hugePageBytes(cache)).toBeGreaterThan(huge)
    expect([0, 1].map((head) => k.data()[head * k.capacity * width])).toEqual([2, 4])
    expect([0, 1].map((head) => k.data()[(head * k.capacity + 60 * TILE) * width - 1])).toEqual([1, 2])
  })
})
