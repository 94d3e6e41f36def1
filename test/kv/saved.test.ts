/** A cache through bytes and back: what was written is there again, and what is damaged is told. */
import { describe, expect, it } from 'vitest'
import { F16, F32 } from '../../src/ggml/types.ts'
import { KvCache } from '../../src/kv/cache.ts'
import type { CacheLayout } from '../../src/kv/layout.ts'
import type { Source } from '../../src/kv/saved.ts'

const LAYOUT: CacheLayout = {
  layers: [
    {
      k: { width: 8, nHead: 2, type: F16, order: 'rows' },
      v: { width: 8, nHead: 2, type: F32, order: 'transposed' },
      few: { width: 4, nHead: 1, type: F32, order: 'rows', fixed: 2 },
    },
    { k: { width: 4, nHead: 3, type: F32, order: 'rows' }, v: { width: 4, nHead: 3, type: F16, order: 'rows' } },
  ],
}

/** 40 tokens, of which the second layer dropped some and gave a head of keys back. */
function filled(): KvCache {
  const cache = new KvCache(LAYOUT, 100)
  cache.append(40)
  for (const [il, { stores }] of cache.layers.entries()) {
    for (const store of Object.values(stores)) {
      for (const [head, bytes] of store.used(40).entries()) bytes.forEach((_, i) => (bytes[i] = 31 * il + 17 * head + 7 * i))
    }
  }
  cache.keepHeads(1, 'k', [0, 2])
  cache.keep(
    1,
    [0, 1, 2].map((head) => Array.from({ length: 30 }, (_, i) => i + head)),
  )
  cache.append(3)
  cache.memo = { keep: { heavy: [1, 2] }, read: null }
  return cache
}

const contentOf = (cache: KvCache) =>
  cache.layers.map(({ stores, rows }) => ({
    stores: Object.values(stores).map((store) => [
      store.layout,
      store.used(rows[0]!.highWater).map((bytes) => Buffer.from(bytes).toString('hex')),
    ]),
    rows: rows.map(({ state }) => state),
  }))

async function saved(cache: KvCache): Promise<Buffer> {
  const pieces: Uint8Array[] = []
  await cache.save(async (bytes) => void pieces.push(bytes.slice()))
  return Buffer.concat(pieces)
}

function sourceOf(bytes: Uint8Array): Source {
  let at = 0
  return async (into) => {
    if (at + into.length > bytes.length) return false
    into.set(bytes.subarray(at, at + into.length))
    at += into.length
    return true
  }
}

describe('a saved cache', () => {
  it('is restored with all there is', async () => {
    using cache = filled()
    using copy = await cache.restore(sourceOf(await saved(cache)))
    expect(contentOf(copy)).toEqual(contentOf(cache))
    expect(copy.memo).toEqual(cache.memo)
    expect(copy.nTokens).toBe(43)
    expect(copy.bytesHeld).toBe(cache.bytesHeld)
    copy.checkIntegrity()
  })

  it('is its own: what the copy does later does not change it', () => {
    using cache = filled()
    const before = contentOf(cache)
    using fork = cache.fork()
    expect(contentOf(fork)).toEqual(before)
    fork.layers[0]!.k.data().fill(1)
    fork.append(5)
    fork.memo.keep = null
    expect(contentOf(cache)).toEqual(before)
    expect(cache.memo.keep).toEqual({ heavy: [1, 2] })
  })

  it('is refused when it is torn anywhere, or a bit has turned', async () => {
    using cache = filled()
    const bytes = await saved(cache)
    for (const end of [0, 7, 11, 60, 500, bytes.length - 40, bytes.length - 1])
      await expect(cache.restore(sourceOf(bytes.subarray(0, end))), `${end} bytes`).rejects.toMatchObject({
        code: 'cache_invalid',
      })
    for (const at of [0, 9, 30, 800, bytes.length - 100, bytes.length - 1]) {
      const turned = Buffer.from(bytes)
      turned[at]! ^= 4
      await expect(cache.restore(sourceOf(turned)), `byte ${at}`).rejects.toMatchObject({ code: 'cache_invalid' })
    }
  })

  it('is refused by a cache of another layout', async () => {
    using cache = filled()
    using other = new KvCache({ layers: [LAYOUT.layers[0]!, LAYOUT.layers[0]!] }, 100)
    await expect(other.restore(sourceOf(await saved(cache)))).rejects.toThrow('another model, setting or type')
  })

  it('is refused when it has more rows than there is room for', async () => {
    using cache = new KvCache(LAYOUT, 5000)
    cache.append(4000)
    using small = new KvCache(LAYOUT, 100)
    await expect(small.restore(sourceOf(await saved(cache)))).rejects.toMatchObject({ code: 'cache_invalid' })
  })
})
