/**
 * `kvasir bench --profile`: where the time of a step goes. The same work is done in turns: by us as always, by us with every
 * operation computed and timed by itself, and by llama.cpp if it is asked for. A lap is a whole prompt, or one token.
 */
import { KvasirError } from '../core/errors.ts'
import type { Runner } from '../engine/runner.ts'
import { parse, plan } from './bench.ts'
import type { BenchInput } from './bench-options.ts'
import { contenderName } from './contender.ts'
import { loadEngines, seat } from './engines.ts'
import { PieceTimes } from './piece-times.ts'
import { type Entrant, fill, type RaceOptions, type Test, warmUp } from './race.ts'
import { testName } from './report.ts'
import { rowHead } from './results.ts'
import type { Profile, TestProfile, Versus } from './profile-result.ts'
import { mean, median } from './statistics.ts'
import { generate, readPrompt } from './workload.ts'

/** Errors: those of {@link runBench}. */
export async function runProfile({ signal, onProgress, ...input }: BenchInput): Promise<Profile> {
  const options = parse(input)
  if (options.nParallel.length > 0) throw new KvasirError('usage', { reason: 'a profile is of one sequence: leave out -npl' })
  const rounds = plan(options)
  using engines = await loadEngines(options, { signal, onProgress })
  const { runner, turns } = engines
  const tests: TestProfile[] = []
  for (const { nSeq, nDepth, tests: some } of rounds) {
    const nCtx = nDepth + Math.max(...some.map((test) => test.nPrompt + test.nGen))
    const { nBatch, seed, repetitions } = options
    const work: RaceOptions = { nSeq, nVocab: runner.shape.nVocab, nBatch, seed, repetitions, signal, turns }
    await using seated = await seat(engines, { nSeq, nCtx }, options)
    for (const test of some) {
      onProgress?.(`profiling ${testName({ n_prompt: test.nPrompt, n_gen: test.nGen, n_depth: nDepth })}`)
      await fill(seated.entrants, nDepth, work)
      if (options.warmup) await warmUp(seated.entrants, test, work)
      tests.push(...(await profileTest(seated.entrants, test, { ...work, runner })))
    }
  }
  return { ...rowHead(engines.source, options, engines.nThreads), tests }
}

interface ProfileOptions extends RaceOptions {
  readonly runner: Runner
}

/** An entrant's laps: how long each took, and where our time went; or the times of its operations. */
interface Measured {
  readonly entrant: Entrant
  readonly laps: { readonly seconds: number; readonly spent: Spent }[]
  /** Null for llama.cpp. */
  readonly pieces: PieceTimes | null
}

type Spent = Readonly<Record<'record' | 'fill' | 'compute' | 'read', number>>

async function profileTest(entrants: readonly Entrant[], test: Test, options: ProfileOptions): Promise<TestProfile[]> {
  const all = entrants.map((entrant): Measured => {
    return { entrant, laps: [], pieces: entrant.contender.engine === 'kvasir' ? new PieceTimes() : null }
  })
  try {
    for (let round = 0; round < options.repetitions; round++) {
      for (const measured of round % 2 === 0 ? all : all.toReversed()) {
        await computeAtOnce(measured, test, options)
        if (measured.pieces) await computeInPieces(measured.entrant, measured.pieces, { test, options })
      }
    }
    const rivals = all.filter(({ pieces }) => pieces === null).map(versusOf)
    const versus = rivals.toSorted((a, b) => a.seconds - b.seconds)[0] ?? null
    return all.flatMap(({ entrant, laps, pieces }) => (pieces ? [profileOf(entrant, laps, { pieces, test, versus })] : []))
  } finally {
    for (const { pieces } of all) pieces?.[Symbol.dispose]()
  }
}

/** As it always goes. */
async function computeAtOnce({ entrant, laps }: Measured, test: Test, { runner, ...options }: ProfileOptions): Promise<void> {
  await eachLap(entrant, { test, options }, async (run) => {
    const before = runner.seconds
    const start = performance.now()
    await run()
    const seconds = (performance.now() - start) / 1000
    const { record, fill: filled, compute, read } = runner.seconds
    const spent = {
      record: record - before.record,
      fill: filled - before.fill,
      compute: compute - before.compute,
      read: read - before.read,
    }
    laps.push({ seconds, spent })
  })
}

async function computeInPieces(
  entrant: Entrant,
  pieces: PieceTimes,
  { test, options: { runner, ...options } }: { readonly test: Test; readonly options: ProfileOptions },
): Promise<void> {
  runner.inPieces = pieces.compute
  try {
    await eachLap(entrant, { test, options }, async (run) => {
      pieces.beginLap()
      await run()
    })
  } finally {
    runner.inPieces = null
  }
}

/** Runs the laps of a test: a prompt is one, and so is every token that is generated. Leaves the cache as it was, or empty. */
async function eachLap(
  { contender, owner }: Entrant,
  { test, options }: { readonly test: Test; readonly options: RaceOptions },
  around: (run: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const { turns, ...work } = options
  await fill([{ contender, owner, laps: [] }], test.nDepth, options)
  await turns.take(owner, async () => {
    if (test.nPrompt > 0) await around(() => readPrompt(contender, test.nPrompt, work))
    for (let i = 0; i < test.nGen; i++) await around(() => generate(contender, 1, { ...work, seed: work.seed + i }))
    if (!contender.truncate(test.nDepth)) contender.clear()
  })
}

function versusOf({ entrant: { contender }, laps }: Measured): Versus {
  const seconds = laps.map((lap) => lap.seconds)
  return { engine: contenderName(contender), seconds: median(seconds), seconds_least: Math.min(...seconds) }
}

function profileOf(
  { contender }: Entrant,
  laps: Measured['laps'],
  { pieces, test, versus }: { readonly pieces: PieceTimes; readonly test: Test; readonly versus: Versus | null },
): TestProfile {
  const of = (what: keyof Spent) => median(laps.map(({ spent }) => spent[what]))
  const rest = laps.map(({ seconds, spent }) => seconds - spent.record - spent.fill - spent.compute - spent.read)
  return {
    attention: contender.attention,
    n_prompt: test.nPrompt,
    n_gen: test.nGen,
    n_depth: test.nDepth,
    pieces: pieces.times,
    piece_cost_seconds: pieces.costSeconds,
    compute_seconds: of('compute'),
    record_seconds: mean(laps.map(({ spent }) => spent.record)),
    fill_seconds: of('fill'),
    read_seconds: of('read'),
    rest_seconds: median(rest),
    lap_seconds: median(laps.map(({ seconds }) => seconds)),
    compute_seconds_least: Math.min(...laps.map(({ spent }) => spent.compute)),
    lap_seconds_least: Math.min(...laps.map(({ seconds }) => seconds)),
    versus,
  }
}
