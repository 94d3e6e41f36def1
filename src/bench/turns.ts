/**
 * Engines take turns in one process. Two things make that fair, and this file does both: no turn begins while threads of the
 * turn before still spin (ggml's do for about 0.15 s after a graph), and memory is put down to whoever took it.
 *
 * Processes of their own for each engine were measured too (shape of Llama 3.2 1B, q4_0, two cores, the best of 6 runs in
 * tokens/s, alone → paired): llama.cpp reads 250 → 260 and writes 62.9 → 64.8, we read 311 → 309 and write 61.8 → 62.9. The
 * difference is that of two runs, so there is nothing to gain from a second process and its protocol.
 */
import { setTimeout } from 'node:timers/promises'

export class Turns {
  /** Bytes that became resident during the turns of each owner. */
  readonly #taken = new Map<string, number>()

  /** Waits for quiet, then lets `owner` work alone. */
  async take<T>(owner: string, work: () => T | Promise<T>): Promise<T> {
    await untilQuiet()
    const before = process.memoryUsage.rss()
    try {
      return await work()
    } finally {
      this.#taken.set(owner, (this.#taken.get(owner) ?? 0) + process.memoryUsage.rss() - before)
    }
  }

  /** Resident bytes of the process, less what became resident during others' turns. `a` also owns what is booked under the
   * part before its slash: `llama.cpp/fa on` has its own cache, and the weights of `llama.cpp`. */
  residentBytes(owner: string): number {
    const others = [...this.#taken].filter(([other]) => other !== owner && !owner.startsWith(`${other}/`))
    return others.reduce((bytes, [, taken]) => bytes - taken, process.memoryUsage.rss())
  }
}

const SLICE_MS = 50
/** So many in a row: a thread that spins may be without a processor for a while, on a busy machine. */
const QUIET_SLICES = 2
const QUIET_SHARE = 0.2
const PATIENCE_MS = 3000

/** Resolves when the process uses less than a fifth of a processor, or after three seconds. */
async function untilQuiet(): Promise<void> {
  const until = performance.now() + PATIENCE_MS
  for (let quiet = 0; quiet < QUIET_SLICES && performance.now() < until;) {
    const before = process.cpuUsage()
    const start = performance.now()
    await setTimeout(SLICE_MS)
    const used = process.cpuUsage(before)
    quiet = (used.user + used.system) / 1000 < QUIET_SHARE * (performance.now() - start) ? quiet + 1 : 0
  }
}
