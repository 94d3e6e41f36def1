/** Random mixes of settings, chunks, joins, leaves, failures, forks, cuts and copies: the books agree after each. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { random } from '../../src/core/random.ts'
import { Runner, type RunChunk } from '../../src/engine/runner.ts'
import type { RunSequence } from '../../src/engine/run-sequence.ts'
import { F16 } from '../../src/ggml/types.ts'
import { openWeights } from '../../src/weights/open.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'

const MIXES = 100
const EVENTS = 12
const N_CTX = 256
const SETTINGS = [
  ...['dense', 'streaming:sink=2,window=30', 'h2o:heavy=12,recent=9', 'hip:k=16,window=16,dense_layers=1,refresh=3'],
  ...['sparq:r=8,k=16,from=0', 'chai:ratio=0.5', 'sa:layers=2-3', 'drop:layers=4'],
  ...['streaming:window=24+sparq:from=0,k=8', 'h2o:heavy=20,recent=20+hip:k=16,window=16', 'chai:ratio=0.5+streaming:window=40'],
  ...['sa:layers=3+sparq:from=0,k=12', 'drop:layers=1+h2o:budget=30'],
]

let runner: Runner
const tokens = heldoutTokens(N_CTX)
beforeAll(async () => {
  using source = openWeights(BUNDLED_GGUF)
  runner = await Runner.load(source, { nThreads: 1, cacheTypes: { k: F16, v: F16 }, repack: true })
})
afterAll(() => runner[Symbol.dispose]())

/** Copies go through bytes. */
async function copyOf(sequence: RunSequence): Promise<RunSequence> {
  const pieces: Uint8Array[] = []
  await sequence.save(async (bytes) => void pieces.push(bytes.slice()))
  const all = Buffer.concat(pieces)
  let at = 0
  return await sequence.restore(async (into) => {
    into.set(all.subarray(at, (at += into.length)))
    return true
  })
}

it.each(Array.from({ length: MIXES / 10 }, (_, i) => i))('mixes from %i0 on', async (tens) => {
  for (let seed = 10 * tens; seed < 10 * tens + 10; seed++) {
    const next = random(seed + 1)
    const below = (n: number) => Math.floor(next() * n)
    const sequences: RunSequence[] = []
    const step = async () => {
      const parts = sequences.flatMap((sequence): RunChunk[] => {
        const { cache, attention } = sequence
        const room = Math.min(N_CTX - cache.nTokens, attention.maxChunk(cache))
        if (room < 1 || next() < 0.3) return []
        const n = next() < 0.5 ? 1 : 1 + below(Math.min(room, 60))
        const some = tokens.subarray(cache.nTokens, cache.nTokens + n)
        return [{ sequence, tokens: some, logits: next() < 0.8 ? 'last' : 'none', endsPrompt: next() < 0.7 }]
      })
      if (parts.length === 0) return
      // Now and then somebody sends what no model knows, or everybody leaves while it computes.
      const spoilt = next() < 0.1 ? { ...parts[0]!, tokens: [-1] } : parts[0]!
      const running = runner.step([spoilt, ...parts.slice(1)])
      if (next() < 0.1) runner.interrupt()
      const results = await running.catch(() => [])
      for (const result of results)
        if ('logits' in result && result.logits) expect(result.logits.every(Number.isFinite)).toBe(true)
    }
    const events = [
      ...Array.from({ length: 5 }, () => step),
      () => void (sequences.length < 5 && sequences.push(runner.newSequence(N_CTX, SETTINGS[below(SETTINGS.length)]))),
      () => sequences.splice(below(sequences.length), 1)[0]?.[Symbol.dispose](),
      () => void (sequences.length < 5 && sequences.length > 0 && sequences.push(sequences[below(sequences.length)]!.fork())),
      async () =>
        void (sequences.length < 5 && sequences.length > 0 && sequences.push(await copyOf(sequences[below(sequences.length)]!))),
      () => void sequences[below(sequences.length)]?.truncate(below(N_CTX)),
    ]
    try {
      sequences.push(
        runner.newSequence(N_CTX, SETTINGS[seed % SETTINGS.length]),
        runner.newSequence(N_CTX, SETTINGS[below(SETTINGS.length)]),
      )
      for (let i = 0; i < EVENTS; i++) {
        await events[below(events.length)]!()
        for (const { cache } of sequences) expect(() => cache.checkIntegrity()).not.toThrow()
      }
    } finally {
      for (const sequence of sequences) sequence[Symbol.dispose]()
    }
  }
})
