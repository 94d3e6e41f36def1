import { afterAll, describe, expect, it } from 'vitest'
import { formatProfile, groupsOf, secondsOf } from '../../src/bench/profile-report.ts'
import { runProfile } from '../../src/bench/profile.ts'
import { PieceTimes } from '../../src/bench/piece-times.ts'
import { workOf } from '../../src/bench/work.ts'
import { Runner } from '../../src/engine/runner.ts'
import { isFree, nodeAt } from '../../src/ggml/node.ts'
import { type Piece, piecesOf } from '../../src/ggml/pieces.ts'
import type { Graph } from '../../src/ggml/graph.ts'
import { ggml } from '../../src/ggml/library.ts'
import { F16 } from '../../src/ggml/types.ts'
import { openWeights } from '../../src/weights/open.ts'
import { BUNDLED_GGUF } from '../support/bundled.ts'

const PARTS = [
  'embedding',
  'norm',
  'attention.projections',
  'attention.rotation',
  'attention.write',
  'attention.read',
  'attention.output',
  'residual',
  'feed-forward',
  'logits',
]
const N_LAYER = 6

using source = openWeights(BUNDLED_GGUF)
const runner = await Runner.load(source, { nThreads: 1, cacheTypes: { k: F16, v: F16 }, repack: true })
afterAll(() => runner[Symbol.dispose]())

/** Logits of a prompt of `n` tokens and of one token more. */
async function logits(n: number): Promise<Float32Array[]> {
  using sequence = runner.newSequence(n + 1)
  const tokens = Int32Array.from({ length: n }, (_, i) => 300 + i)
  const [prompt] = await runner.run([{ sequence, tokens, logits: 'last' }])
  const first = prompt!.slice()
  const [next] = await runner.run([{ sequence, tokens: [299], logits: 'last' }])
  return [first, next!.slice()]
}

describe('a graph in pieces', () => {
  it.each([20, 100])('gives the logits of the whole, bit by bit, after %i tokens', async (n) => {
    const whole = await logits(n)
    using times = new PieceTimes()
    runner.inPieces = times.compute
    const pieces = await logits(n)
    runner.inPieces = null
    expect(pieces).toEqual(whole)
    expect(whole[0]).not.toEqual(whole[1])
  })

  it('has every operation once, in a part', async () => {
    const seen: { readonly graph: number[]; readonly pieces: Piece[] }[] = []
    runner.inPieces = (graph: Graph, compute) => {
      const nodes = Array.from({ length: graph.nNodes }, (_, i) => nodeAt(ggml().ggml_graph_node(graph.ptr, i)))
      const pieces = piecesOf(graph)
      seen.push({ graph: [nodes.filter((node) => !isFree(node)).length], pieces })
      for (const { view } of pieces) compute(view)
      return 0
    }
    await logits(20)
    runner.inPieces = null
    expect(seen).toHaveLength(2)
    for (const { graph, pieces } of seen) {
      expect(pieces.reduce((n, { op }) => n + op.split(' + ').length, 0)).toBe(graph[0])
      expect(new Set(pieces.map(({ label }) => label.part))).toEqual(new Set(PARTS))
      for (const { label, op } of pieces) {
        const isOfModel = label.part === 'embedding' || label.part === 'logits'
        if (isOfModel) expect(label.il, `${label.part} ${op}`).toBeNull()
      }
      expect(new Set(pieces.map(({ label }) => label.il))).toEqual(new Set([null, ...Array(N_LAYER).keys()]))
    }
  })

  it('knows what a product has to do', async () => {
    const products: Piece[] = []
    runner.inPieces = (graph, compute) => {
      const pieces = piecesOf(graph)
      products.push(...pieces.filter(({ label }) => label.part === 'logits'))
      for (const { view } of pieces) compute(view)
      return 0
    }
    await logits(20)
    runner.inPieces = null
    const { nEmbd, nVocab } = runner.shape
    for (const { node } of products)
      expect(workOf(node)).toEqual({ flops: 2 * nEmbd * nVocab, bytes: 2 * nEmbd * nVocab + 4 * (nEmbd + nVocab) })
  })
})

describe('a profile', async () => {
  const small = { model: BUNDLED_GGUF, nPrompt: [40], nGen: [2], nDepth: [0, 30], repetitions: 2, nThreads: 1, profile: true }
  const profile = await runProfile({ ...small, versus: 'llama.cpp', attention: 'dense' })

  it('is one per test, beside llama.cpp', () => {
    expect(profile.tests.map(({ n_prompt, n_gen, n_depth }) => [n_prompt, n_gen, n_depth])).toEqual([
      [40, 0, 0],
      [0, 2, 0],
      [40, 0, 30],
      [0, 2, 30],
    ])
    for (const test of profile.tests) {
      expect(test.versus!.engine).toMatch(/^llama\.cpp -fa [01]$/)
      expect(test.compute_seconds).toBeGreaterThan(0)
      expect(test.piece_cost_seconds).toBeGreaterThan(0)
    }
  })

  it('has parts, operations and layers that sum to all pieces', () => {
    for (const { pieces } of profile.tests) {
      const total = secondsOf(pieces)
      for (const nameOf of [
        (p: (typeof pieces)[0]) => p.part,
        (p: (typeof pieces)[0]) => p.op + p.shape,
        (p: (typeof pieces)[0]) => String(p.il),
      ]) {
        const sums = [...groupsOf(pieces, nameOf).values()].map(secondsOf)
        expect(sums.reduce((a, b) => a + b)).toBeCloseTo(total, 9)
      }
    }
  })

  it('is written as tables, as an object and as CSV', () => {
    const text = formatProfile(profile, 'md')
    for (const title of ['## pp40,', '## tg2,', '### Parts', '### Operations', '### Layers', '### All'])
      expect(text).toContain(title)
    for (const part of PARTS) expect(text).toContain(`| ${part} `)
    expect(JSON.parse(formatProfile(profile, 'json'))).toMatchObject({ n_threads: 1, tests: [{ n_prompt: 40 }, {}, {}, {}] })
    const lines = formatProfile(profile, 'csv').trimEnd().split('\n')
    expect(lines).toHaveLength(1 + profile.tests.reduce((n, { pieces }) => n + pieces.length, 0))
  })

  it('is of one sequence', async () => {
    await expect(runProfile({ ...small, nParallel: [2] })).rejects.toMatchObject({ code: 'usage' })
  })
})
