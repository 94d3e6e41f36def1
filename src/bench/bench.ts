/**
 * `kvasir bench`: llama-bench's tests (read a prompt, generate tokens, at depths that a real prompt has filled) and
 * llama-batched-bench's (several sequences side by side), for our engine and, turn by turn, for llama.cpp.
 */
import { KvasirError } from '../core/errors.ts'
import { contenderName } from './contender.ts'
import { loadEngines, seat } from './engines.ts'
import { type BenchInput, type BenchOptions, benchSchema } from './bench-options.ts'
import { type Entrant, fill, race, type RaceOptions, type Test, warmUp } from './race.ts'
import { testName } from './report.ts'
import { rowHead, rowsOf } from './results.ts'
import type { BenchRow } from './row.ts'

/** Errors: `usage` and `attention_invalid` for options that make no sense, those of loading, and `aborted`. */
export async function runBench({ signal, onProgress, ...input }: BenchInput): Promise<BenchRow[]> {
  const options = parse(input)
  const rounds = plan(options)
  using engines = await loadEngines(options, { signal, onProgress })
  const { turns } = engines
  const head = rowHead(engines.source, options, engines.nThreads)
  const rows: BenchRow[] = []
  for (const { nSeq, nDepth, tests } of rounds) {
    const nCtx = Math.max(...tests.map((test) => nDepth + test.nPrompt + test.nGen))
    const { nBatch, seed, repetitions } = options
    const work: RaceOptions = { nSeq, nVocab: engines.runner.shape.nVocab, nBatch, seed, repetitions, signal, turns }
    await using seated = await seat(engines, { nSeq, nCtx }, options)
    if (nDepth > 0) {
      onProgress?.(`filling ${seated.entrants.length} caches with ${nSeq} × ${nDepth} tokens`)
      await fill(seated.entrants, nDepth, work)
    }
    for (const test of tests) {
      const entrants = seated.entrants.map((entrant): Entrant => ({ ...entrant, laps: [] }))
      if (options.warmup) await warmUp(entrants, test, work)
      await race(entrants, test, { ...work, onLap: (entrant) => onProgress?.(lapLine(entrant, test, work)) })
      rows.push(...rowsOf(entrants, test, { head, nSeq, batched: options.nParallel.length > 0 }))
    }
  }
  return rows
}

/** Tests that share caches: the same number of sequences at the same depth. */
interface Round {
  readonly nSeq: number
  readonly nDepth: number
  readonly tests: readonly Test[]
}

export function plan({ nParallel, nDepth: depths, nPrompt, nGen }: BenchOptions): Round[] {
  const prompts = nPrompt.map((n) => ({ nPrompt: n, nGen: 0 }))
  const generations = nGen.map((n) => ({ nPrompt: 0, nGen: n }))
  const both = nPrompt.flatMap((n) => nGen.map((m) => ({ nPrompt: n, nGen: m })))
  const wanted = (nParallel.length > 0 ? both : [...prompts, ...generations]).filter((test) => test.nPrompt + test.nGen > 0)
  if (wanted.length === 0 || depths.length === 0)
    throw new KvasirError('usage', { reason: 'nothing to measure: -p and -n are 0' })
  return depths.flatMap((nDepth) =>
    (nParallel.length > 0 ? nParallel : [1]).map((nSeq) => ({
      nSeq,
      nDepth,
      tests: wanted.map((test) => ({ ...test, nDepth })),
    })),
  )
}

/** Errors: `usage`. */
export function parse(input: Omit<BenchInput, 'signal' | 'onProgress'>): BenchOptions {
  const result = benchSchema.safeParse(input)
  if (result.success) return result.data
  const { path, message } = result.error.issues[0]!
  throw new KvasirError('usage', { reason: `${path.join('.')}: ${message}` })
}

function lapLine({ contender, laps }: Entrant, test: Test, { nSeq, repetitions }: RaceOptions): string {
  const { prompt, generation } = laps.at(-1)!
  const speed = (nSeq * (test.nPrompt + test.nGen)) / (prompt + generation)
  const name = testName({ n_prompt: test.nPrompt, n_gen: test.nGen, n_depth: test.nDepth })
  const sequences = nSeq > 1 ? ` × ${nSeq}` : ''
  const how = contender.engine === 'kvasir' ? ` ${contender.attention}` : ''
  return `${name}${sequences}, ${contenderName(contender)}${how}, run ${laps.length} of ${repetitions}: ${speed.toFixed(2)} t/s`
}
