/**
 * How many threads compute while other programs want the processors too.
 *
 * After each of a graph's many operations ggml's threads spin until the slowest has done its part. When one of them has no
 * processor, that takes a time slice of the system's scheduler, hundreds of times as long as the operation. So we take no more
 * threads than others lately left us processors; with a single thread nobody waits.
 *
 * Results are the same to the last bit with any number, but where ggml's flash attention reads 512 rows and more for a single
 * query: it adds up one part per thread.
 */
import { allowedProcessors, busySeconds } from '../core/processors.ts'

/** What was used up to now, in seconds. */
export interface Usage {
  readonly at: number
  /** Of the processors we may use, by everybody. */
  readonly busy: number
  /** Of them, by this process. */
  readonly own: number
}

/** Between two looks: long against the ticks of 10 ms in which systems count, short for somebody who waits. */
const LOOK_SECONDS = 0.2
/** Before we take more again: others pause too, and a step of threads that have no processors takes a second. */
const CALM_SECONDS = 0.5
/** Since the program started: less exact, but a step is at stake here too. */
const FIRST_LOOK_SECONDS = 0.05
/** While nothing computes we look too, so that the first step after a pause goes by what is, not by the mean of an hour. */
const PAUSE_SECONDS = 1
/** Others may take so much of a processor before we leave it to them: there always is a little going on. */
const SLACK = 0.3

const processors = allowedProcessors()
/** Taken when the program starts: by the first step, models have taken a while to load. */
const start = currentUsage()

export class FairShare implements Disposable {
  readonly #most: number
  readonly #timer: NodeJS.Timeout | undefined
  #nThreads: number
  #before = start

  constructor(most: number) {
    this.#most = most
    this.#nThreads = most
    if (most > 1) this.#timer = setInterval(() => this.#look(), PAUSE_SECONDS * 1000).unref()
  }

  /** Threads for the next computation. */
  threadsNow(): number {
    if (this.#most > 1 && performance.now() / 1000 >= this.#before.at + this.#pause()) this.#look()
    return this.#nThreads
  }

  #pause(): number {
    if (this.#before === start) return FIRST_LOOK_SECONDS
    return this.#nThreads < this.#most ? CALM_SECONDS : LOOK_SECONDS
  }

  #look(): void {
    const now = currentUsage()
    this.#nThreads = Math.min(this.#most, threadsLeft(processors.length, this.#before, now))
    this.#before = now
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }
}

/** For how many threads others left processors between two looks. */
export function threadsLeft(nProcessors: number, before: Usage, now: Usage): number {
  const others = (now.busy - before.busy - (now.own - before.own)) / (now.at - before.at)
  return Math.max(1, Math.floor(nProcessors - others + SLACK))
}

function currentUsage(): Usage {
  const { user, system } = process.cpuUsage()
  return { at: performance.now() / 1000, busy: busySeconds(processors), own: (user + system) / 1e6 }
}
