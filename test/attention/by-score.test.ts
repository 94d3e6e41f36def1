/** What methods by score have in common, with one that knows nothing of attention: the norm of a key. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { keepByScore } from '../../src/attention/keep/by-score.ts'
import { writeRows } from '../../src/attention/kernels/write.ts'
import { F32 } from '../../src/ggml/types.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { conforms } from '../support/conformance.ts'
import { N_EMBD } from '../support/layer-shape.ts'
import { dot } from '../support/oracle.ts'
import { normals } from '../support/random.ts'

/** Keys of small norms are attended to most. Devoto et al., arXiv 2406.11430. */
const options = z.object({ best: z.number().default(900), recent: z.number().default(100) })
const knorm = keepByScore<typeof options>({
  name: 'knorm',
  summary: 'Keeps the keys of the smallest norms and the most recent ones.',
  source: 'arXiv 2406.11430',
  cost: '2·G·(best + recent)·d·e bytes per layer and token',
  options,
  score: (budget) => ({
    budget: () => budget,
    record: (chunk, { into }) => ({
      write({ il }, { k }) {
        const norms = chunk.g.sqrt(chunk.g.sumRows(chunk.g.sqr(k!))) // f32[1, G, n]
        writeRows(chunk, { il, store: into(il), perHead: true }, chunk.g.scale(norms, -1))
      },
    }),
  }),
})

describe.each([
  { nHead: 4, nHeadKv: 4, headDim: 32 },
  { nHead: 8, nHeadKv: 2, headDim: 64 },
])('keys by their norm, $nHead heads on $nHeadKv', (shape) => {
  it.each([
    [30, 10],
    [40, 0],
    [0, 40],
  ])('keeps %i of the best and %i of the newest', async (best, recent) => {
    const [nPrompt, T] = [120, 150]
    const x = normals(N_EMBD * T, 51)
    using layer = new TestLayer({ method: 'knorm', best, recent }, shape, F32, [knorm])
    using cache = layer.newCache(256)
    const { k } = layer.oracle(x)
    const held = cache.layers[0]!.rows.map((): number[] => [])
    for (let at = 0; at < T;) {
      const n = at < nPrompt ? 60 : 1
      await layer.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }], at + n >= nPrompt)
      for (const list of held) for (let t = at; t < at + n; t++) list.push(t)
      at += n
      if (at < nPrompt) continue
      for (const [head, list] of held.entries()) {
        const norm = (t: number) => dot(k[t]![head]!, k[t]![head]!)
        const older = list.slice(0, list.length - recent).sort((a, b) => norm(a) - norm(b))
        held[head] = [...older.slice(0, best).sort((a, b) => a - b), ...list.slice(list.length - recent)]
        const map = cache.layers[0]!.rows[head]!
        expect(Array.from({ length: map.nRows }, (_, rank) => map.position(map.row(rank)))).toEqual(held[head])
      }
    }
  })
})

conforms([[knorm]], [knorm], {
  knorm: {
    exactFor: (best) => ({ best, recent: 0 }),
    tightFor: (n) => ({ best: Math.floor(n / 8), recent: Math.floor(n / 6) }),
  },
})
