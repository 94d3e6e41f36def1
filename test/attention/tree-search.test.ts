import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { nRounds, searchTree, slotStart, type Tree } from '../../src/attention/read/hip/tree-search.ts'
import { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import { F32, I32 } from '../../src/ggml/types.ts'
import { normals } from '../support/random.ts'

describe('the tree search', () => {
  const backend = new Backend(1)
  const scratch = new Scratch(backend.bufferType)
  afterAll(() => {
    scratch[Symbol.dispose]()
    backend[Symbol.dispose]()
  })

  /** The blocks chosen of `nBlocks` for keys f32[1, nBlocks] and a single voter of 1: scores are the keys. */
  async function choose(tree: Tree, nBlocks: number, keys: Float32Array): Promise<number[]> {
    using g = new Graph(2048)
    const slots = (value: (i: number) => number) =>
      g.input(F32, [tree.nSlots, 1], (data) => data.forEach((_, i) => (data[i] = value(i))))
    const start = (i: number) => slotStart(i, nBlocks, tree.nSlots)
    const all = g.input(F32, [1, nBlocks], (data) => data.set(keys.subarray(0, nBlocks)))
    const chosen = g.output(
      searchTree(g, tree, {
        q: g.input(F32, [1, 1, 1, 1], (data) => data.fill(1)),
        starts: slots(start),
        lengths: slots((i) => start(i + 1) - start(i)),
        nRounds: nRounds(nBlocks, tree.nSlots),
        keysOf: (blocks) => g.reshape(g.getRows(all, g.cast(blocks, I32)), 1, blocks.ne[0], 1, 1),
      }),
    )
    g.plan(scratch)
    g.fillInputs()
    await backend.compute(g, true)
    return [...g.read(chosen, new Float32Array(tree.nSlots))].slice(0, nBlocks)
  }

  const trees = fc.record({
    nSlots: fc.integer({ min: 1, max: 40 }),
    representative: fc.constantFrom('center' as const, 'first' as const, 'last' as const),
    nSinkBlocks: fc.integer({ min: 0, max: 5 }),
    nSampled: fc.constant(1),
  })

  it('gives blocks in order, each once, none outside, with the sinks among them', async () => {
    await fc.assert(
      fc.asyncProperty(trees, fc.integer({ min: 1, max: 3000 }), fc.integer(), async (any, nBlocks, seed) => {
        const tree = { ...any, nSinkBlocks: Math.min(any.nSinkBlocks, any.nSlots) }
        const blocks = await choose(tree, nBlocks, normals(nBlocks, seed))
        expect(blocks).toHaveLength(Math.min(tree.nSlots, nBlocks))
        for (const [i, block] of blocks.entries()) {
          expect(Number.isInteger(block) && block > (blocks[i - 1] ?? -1) && block < nBlocks, `${block} at ${i}`).toBe(true)
        }
        for (let sink = 0; sink < Math.min(tree.nSinkBlocks, blocks.length); sink++) expect(blocks[sink]).toBe(sink)
      }),
      { numRuns: 60, seed: 1 },
    )
  })

  it('finds the best blocks where scores only rise or fall', async () => {
    await fc.assert(
      fc.asyncProperty(trees, fc.integer({ min: 1, max: 3000 }), fc.boolean(), async (tree, nBlocks, rises) => {
        const n = Math.min(tree.nSlots, nBlocks)
        const blocks = await choose(
          { ...tree, nSinkBlocks: 0 },
          nBlocks,
          Float32Array.from({ length: nBlocks }, (_, i) => (rises ? i : -i)),
        )
        expect(blocks).toEqual(Array.from({ length: n }, (_, i) => (rises ? nBlocks - n + i : i)))
      }),
      { numRuns: 60, seed: 2 },
    )
  })
})
