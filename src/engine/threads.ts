/** How many threads compute best: one per physical core, for the kernels fill a core's vector units. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { log } from '../core/log.ts'
import { allowedProcessors, quota } from '../core/processors.ts'

/**
 * Threads for those who ask for none. A quota of 2.6 processors is 3 threads, which all pause now and then, and one of 2.4 is 2:
 * three would pause more than the third is worth.
 */
export function defaultThreads(root = '/'): number {
  return Math.max(1, Math.min(physicalCores(root), Math.round(quota(root))))
}

/**
 * The threads to compute with when `asked` for so many. More than there are processors would be far slower than fewer: they wait
 * for each other after every operation, and one that has no processor keeps all the others waiting.
 */
export function threadsFor(asked?: number, root = '/'): number {
  if (asked === undefined) return defaultThreads(root)
  const most = Math.min(allowedProcessors(root).length, Math.ceil(quota(root)))
  if (asked <= most) return asked
  log.warn(`of ${asked} threads only ${most} will compute: there are no more processors we may use`)
  return most
}

function physicalCores(root: string): number {
  const allowed = allowedProcessors(root)
  try {
    const siblings = (cpu: number) => join(root, `sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`)
    return new Set(allowed.map((cpu) => readFileSync(siblings(cpu), 'utf8'))).size
  } catch {
    // Elsewhere we only know the logical processors; many of them are usually pairs.
    return allowed.length <= 4 ? allowed.length : Math.floor(allowed.length / 2)
  }
}
