/**
 * How well we agree with libllama on GGUF files, reading the held-out text: prints a markdown table, the perplexities, and how
 * many prompts are continued alike. `npx tsx scripts/agreement-real.ts MODEL.gguf…`, minutes for a small model. "libllama -fa 0"
 * is libllama with and without flash attention: the noise below which two correct programs cannot be told apart.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename } from 'node:path'
import { F32, typeName } from '../src/ggml/types.ts'
import { openGguf } from '../src/weights/gguf.ts'
import { HELDOUT } from '../test/support/bundled.ts'
import { logProbability, referenceGreedy, referenceLogits, referenceTokens } from '../test/support/reference.ts'
import { agreement, compare, runnerGreedy, runnerLogits } from '../test/support/runner.ts'
import { printHead, printRow } from './agreement-table.ts'

const N_TOKENS = 1537 // three steps of libllama's size, and well past the windows of models that have one
/** Read one by one, by one thread: in turn with libllama's, threads that wait by spinning take each other's cores. */
const N_SINGLE = 769
const N_PROMPTS = 8
const N_NEW = 64
const nThreads = availableParallelism()

/** The type that most elements have. */
function typeOf(path: string): string {
  using source = openGguf(path)
  const elements = new Map<number, number>()
  for (const { type, ne } of source.tensors.values()) elements.set(type, (elements.get(type) ?? 0) + ne.reduce((a, b) => a * b))
  return typeName([...elements].toSorted(([, a], [, b]) => b - a)[0]![0])
}

function perplexity(tokens: Int32Array, logits: readonly Float32Array[]): string {
  let sum = 0
  for (let i = 0; i + 1 < tokens.length; i++) sum -= logProbability(logits[i]!, tokens[i + 1]!)
  return Math.exp(sum / (tokens.length - 1)).toFixed(4)
}

async function measure(path: string): Promise<string[]> {
  const text = readFileSync(HELDOUT, 'utf8').slice(0, 8 * N_TOKENS)
  const tokens = referenceTokens(path, text, true).slice(0, N_TOKENS)
  const row = (how: string, result: Parameters<typeof printRow>[3]) => printRow(basename(path), typeOf(path), how, result)

  const [ours, on, off] = [
    await runnerLogits(path, tokens, { nThreads }),
    referenceLogits(path, tokens, { nThreads }),
    referenceLogits(path, tokens, { nThreads, flashAttention: 'off' }),
  ]
  row('steps of 512', compare(tokens, ours, on))
  row('libllama -fa 0', compare(tokens, off, on))
  const exact = { cacheType: F32, flashAttention: 'off' } as const
  row('steps of 512, f32 cache, -fa 0', await agreement(path, tokens, { ...exact, nThreads }))
  row('steps of 1, f32 cache, -fa 0', await agreement(path, tokens.subarray(0, N_SINGLE), { ...exact, nUbatch: 1 }))

  const prompts = Array.from({ length: N_PROMPTS }, (_, i) => tokens.slice(0, 20 + 100 * i))
  const theirs = referenceGreedy(path, prompts, N_NEW)
  const same = (answers: number[][]) => answers.filter((answer, i) => answer.join() === theirs[i]!.join()).length
  const [ourSame, noise] = [
    same(await runnerGreedy(path, prompts, N_NEW)),
    same(referenceGreedy(path, prompts, N_NEW, { flashAttention: 'off' })),
  ]
  return [
    `${basename(path)}: perplexity ${perplexity(tokens, ours)}, libllama ${perplexity(tokens, on)};`,
    `the same ${N_NEW} tokens after ${ourSame} of ${N_PROMPTS} prompts, libllama -fa 0 after ${noise}`,
  ]
}

async function main(paths: readonly string[]): Promise<void> {
  if (paths.length === 0) throw new Error('give the paths of GGUF files')
  printHead()
  const remarks: string[] = []
  for (const path of paths) remarks.push((await measure(path)).join(' '))
  console.log(`\n${remarks.join('\n')}`)
}

await main(process.argv.slice(2))
