/** The engines of a run: loaded once, and given a seat (caches of their own) for each group of tests. */
import { KvasirError } from '../core/errors.ts'
import { Runner } from '../engine/runner.ts'
import { threadsFor } from '../engine/threads.ts'
import { typeId } from '../ggml/types.ts'
import { openWeights } from '../weights/open.ts'
import type { WeightSource } from '../weights/source.ts'
import type { Seats } from './contender.ts'
import { KvasirContender } from './kvasir.ts'
import { LlamaModel } from './llama-cpp.ts'
import type { BenchInput, BenchOptions } from './bench-options.ts'
import type { Entrant } from './race.ts'
import { Turns } from './turns.ts'
import { LlamaContender } from './versus.ts'

export interface Engines extends Disposable {
  readonly source: WeightSource
  readonly runner: Runner
  /** Null unless there is a rival. */
  readonly llama: LlamaModel | null
  readonly nThreads: number
  readonly turns: Turns
}

/** Errors: `usage` if the rival cannot read the model, and those of loading. */
export async function loadEngines(
  options: BenchOptions,
  { signal, onProgress }: Pick<BenchInput, 'signal' | 'onProgress'>,
): Promise<Engines> {
  const nThreads = threadsFor(options.nThreads)
  const turns = new Turns()
  const source = openWeights(options.model)
  let runner: Runner | undefined
  let llama: LlamaModel | null = null
  const dispose = () => {
    signal?.removeEventListener('abort', interrupt)
    llama?.[Symbol.dispose]()
    runner?.[Symbol.dispose]()
    source[Symbol.dispose]()
  }
  const interrupt = () => runner?.interrupt()
  try {
    if (options.versus && source.format !== 'gguf') throw new KvasirError('usage', { reason: 'llama.cpp reads .gguf files only' })
    const cacheTypes = { k: typeId(options.typeK), v: typeId(options.typeV) }
    onProgress?.(`kvasir loads ${options.model}`)
    runner = await turns.take('kvasir', () => Runner.load(source, { nThreads, cacheTypes, repack: options.repack, signal }))
    signal?.addEventListener('abort', interrupt)
    for (const setting of options.attention) runner.attention(setting) // one that cannot serve the model is told before the work begins
    if (options.versus) {
      onProgress?.(`llama.cpp loads ${options.model}`)
      llama = await turns.take('llama.cpp', () => new LlamaModel(options.model, options.repack))
    }
    return { source, runner, llama, nThreads, turns, [Symbol.dispose]: dispose }
  } catch (error) {
    dispose()
    throw error
  }
}

/** Caches for one group of tests, of every engine; disposing gives them back. */
export interface Seated extends AsyncDisposable {
  readonly entrants: readonly Entrant[]
}

export async function seat({ runner, llama, nThreads, turns }: Engines, seats: Seats, options: BenchOptions): Promise<Seated> {
  const entrants: Entrant[] = []
  const dispose = async () => {
    for (const { contender, owner } of entrants.toReversed()) await turns.take(owner, () => contender[Symbol.dispose]())
  }
  try {
    for (const attention of options.attention) {
      const owner = `kvasir/${attention}`
      const { nUbatch } = options
      const contender = await turns.take(owner, () => new KvasirContender(runner, { ...seats, attention, nUbatch }))
      entrants.push({ contender, owner, laps: [] })
    }
    if (llama === null) return { entrants, [Symbol.asyncDispose]: dispose }
    for (const flashAttention of options.flashAttn === 'both' ? (['on', 'off'] as const) : [options.flashAttn]) {
      const owner = `llama.cpp/fa ${flashAttention}`
      const own = { ...seats, options, nThreads, flashAttention, shape: runner.shape }
      const contender = await turns.take(owner, () => new LlamaContender(llama, own))
      entrants.push({ contender, owner, laps: [] })
    }
    return { entrants, [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}
