/** One test: every contender does the same work once per round, in an order that is reversed from round to round. */
import type { Contender } from './contender.ts'
import type { Turns } from './turns.ts'
import { generate, readPrompt, type Workload } from './workload.ts'

/** Tokens per sequence, on top of what is already in the cache. */
export interface Test {
  readonly nPrompt: number
  readonly nGen: number
  readonly nDepth: number
}

/** One timed run; seconds. */
export interface Lap {
  readonly prompt: number
  readonly generation: number
  /** Inside ggml's compute; null where it cannot be seen. */
  readonly compute: number | null
  /** At its end. */
  readonly kvBytes: number
  readonly rssBytes: number
}

export interface Entrant {
  readonly contender: Contender
  /** Under which its memory is booked; see {@link Turns.residentBytes}. */
  readonly owner: string
  readonly laps: Lap[]
}

export interface RaceOptions extends Workload {
  readonly turns: Turns
  readonly repetitions: number
  readonly onLap?: (entrant: Entrant) => void
}

/** Times `test` on every entrant, each time from caches that hold `nDepth` tokens. */
export async function race(entrants: readonly Entrant[], test: Test, options: RaceOptions): Promise<void> {
  for (let round = 0; round < options.repetitions; round++) {
    for (const entrant of round % 2 === 0 ? entrants : entrants.toReversed()) {
      entrant.laps.push(await runLap(entrant, test, options))
      options.onLap?.(entrant)
    }
  }
}

/** The same work in small, untimed: page faults, graphs kept for reuse, clock speeds. */
export async function warmUp(entrants: readonly Entrant[], test: Test, options: RaceOptions): Promise<void> {
  const small = { ...test, nPrompt: Math.min(test.nPrompt, 512), nGen: Math.min(test.nGen, 4) }
  for (const entrant of entrants) await runLap(entrant, small, options)
}

/** Reads a prompt of `nDepth` tokens into caches that hold fewer. */
export async function fill(entrants: readonly Entrant[], nDepth: number, { turns, ...work }: RaceOptions): Promise<void> {
  for (const { contender, owner } of entrants) {
    if (contender.truncate(nDepth)) continue
    await turns.take(owner, () => readPrompt(contender, nDepth, { ...work, seed: work.seed + 2 }))
  }
}

/** Leaves the caches at the test's depth again, or empty where rows were dropped that would be needed for that. */
async function runLap(entrant: Entrant, test: Test, options: RaceOptions): Promise<Lap> {
  const { contender, owner } = entrant
  const { turns, ...work } = options
  await fill([entrant], test.nDepth, options)
  return turns.take(owner, async () => {
    const computeBefore = contender.computeSeconds()
    const start = performance.now()
    await readPrompt(contender, test.nPrompt, work)
    const middle = performance.now()
    await generate(contender, test.nGen, work)
    const end = performance.now()
    const compute = contender.computeSeconds()
    const lap = {
      prompt: (middle - start) / 1000,
      generation: (end - middle) / 1000,
      compute: compute === null || computeBefore === null ? null : compute - computeBefore,
      kvBytes: contender.kvBytes(),
      rssBytes: turns.residentBytes(owner),
    }
    if (!contender.truncate(test.nDepth)) contender.clear()
    return lap
  })
}
