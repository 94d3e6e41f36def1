/**
 * What long contexts cost in memory: prints markdown. `npx tsx scripts/memory.ts MODEL.gguf [streaming,h2o,hip]`.
 *
 * - streaming: 100,000 tokens through a window of 2,000, mostly read, each tenth part also written token by token.
 * - h2o: a prompt of 8,192 tokens and a budget of 2,048; the cache by its books, and by the kernel's.
 * - hip: a prompt of 65,536 tokens; the highest resident memory beyond weights, program and cache.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { RunSequence } from '../src/engine/run-sequence.ts'
import { Runner } from '../src/engine/runner.ts'
import { F16 } from '../src/ggml/types.ts'
import { openWeights } from '../src/weights/open.ts'

const [, , path, which = 'streaming,h2o,hip'] = process.argv
if (!path) throw new Error('usage: npx tsx scripts/memory.ts MODEL.gguf [streaming,h2o,hip]')

const STEP = 512
using source = openWeights(path)
const runner = await Runner.load(source, { nThreads: availableParallelism(), cacheTypes: { k: F16, v: F16 }, repack: true })
const MiB = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
const token = (i: number) => (i * 7919 + (i % 13) * 131) % runner.shape.nVocab

/** Resident bytes now, or the most there were since the process began. */
function resident(field: 'RssAnon' | 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
}

async function read(sequence: RunSequence, n: number, onPart?: () => void): Promise<void> {
  const { cache, attention } = sequence
  for (const end = cache.nTokens + n; cache.nTokens < end;) {
    const size = Math.min(STEP, end - cache.nTokens, attention.maxChunk(cache))
    const tokens = Int32Array.from({ length: size }, (_, i) => token(cache.nTokens + i))
    await runner.run([{ sequence, tokens, logits: 'none', endsPrompt: cache.nTokens + size === end }])
    onPart?.()
  }
}

async function write(sequence: RunSequence, n: number): Promise<void> {
  for (let i = 0; i < n; i++) await runner.run([{ sequence, tokens: [token(i)], logits: 'last' }])
}

if (which.includes('streaming')) {
  using sequence = runner.newSequence(4096, 'streaming')
  console.log('\n| streaming, tokens | resident MiB | cache MiB |\n| --: | --: | --: |')
  for (let part = 0; part < 10; part++) {
    await read(sequence, 9800)
    await write(sequence, 200)
    console.log(`| ${sequence.cache.nTokens} | ${MiB(resident('VmRSS'))} | ${MiB(sequence.cache.bytesHeld)} |`)
  }
}

if (which.includes('h2o')) {
  console.log('\n| h2o | cache MiB | of it K and V for 2,048 tokens |\n| --- | --: | --: |')
  using sequence = runner.newSequence(16_384, 'h2o:budget=2048')
  const all = 2048 * runner.cacheBytesPerToken('dense')
  const row = (name: string) => console.log(`| ${name} | ${MiB(sequence.cache.bytesHeld)} | ${MiB(all)} |`)
  await read(sequence, 8192 - STEP)
  row('before the end of the prompt')
  await read(sequence, STEP)
  row('after 8,192 tokens')
  await write(sequence, 300)
  row('and 300 more')
}

if (which.includes('hip')) {
  const n = 65_536
  using sequence = runner.newSequence(n + STEP, 'hip:dense_layers=0')
  await read(sequence, STEP)
  const before = resident('RssAnon') - sequence.cache.bytesHeld
  let most = 0
  await read(sequence, n - STEP, () => {
    most = Math.max(most, resident('RssAnon') - sequence.cache.bytesHeld)
  })
  console.log(
    '\n| hip, prompt | cache MiB | weights and program | most beyond the cache | scratch |\n| --: | --: | --: | --: | --: |',
  )
  const cells = [n, sequence.cache.bytesHeld, before - runner.scratchBytes, most, runner.scratchBytes]
  console.log(`| ${cells.map((x, i) => (i === 0 ? x : MiB(x))).join(' | ')} |`)
}
runner[Symbol.dispose]()
