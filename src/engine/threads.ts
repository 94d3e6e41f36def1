/** How many threads compute best: one per physical core, for the kernels fill a core's vector units. */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

export function defaultThreads(): number {
  const available = availableParallelism()
  const cores = new Set<string>()
  try {
    for (let cpu = 0; cpu < available; cpu++) {
      cores.add(readFileSync(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`, 'utf8'))
    }
    return cores.size
  } catch {
    // Elsewhere we only know the logical processors; many of them are usually pairs.
    return available <= 4 ? available : Math.floor(available / 2)
  }
}
