/**
 * ggml's threads. Without a pool of its own a backend, or a context of libllama, starts and joins threads in every step,
 * which costs several times the step of a small model.
 */
import koffi, { type TypeObject } from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from './bindings.ts'
import { ggml } from './library.ts'

/** ggml's own default: an idle thread spins for about 0.15 s before it sleeps, and the pause between two steps is short. */
const POLL = 50
const MAX_THREADS = 512 // GGML_MAX_N_THREADS

const params = koffi.struct({
  cpumask: koffi.array('bool', MAX_THREADS),
  n_threads: 'int',
  prio: 'int',
  poll: 'uint32_t',
  strict_cpu: 'bool',
  paused: 'bool',
})

export class Threadpool implements Disposable {
  readonly pointer: Pointer
  readonly nThreads: number
  readonly #free: (pool: Pointer) => void

  constructor(device: Pointer, nThreads: number) {
    this.nThreads = nThreads
    const newPool = cpuFunction(device, 'ggml_threadpool_new', 'void *', [koffi.pointer(params)])
    this.#free = cpuFunction(device, 'ggml_threadpool_free', 'void', ['void *'])
    const cpumask = Array.from({ length: MAX_THREADS }, () => false)
    this.pointer = newPool({ cpumask, n_threads: nThreads, prio: 0, poll: POLL, strict_cpu: false, paused: false })
  }

  [Symbol.dispose](): void {
    this.#free(this.pointer)
  }
}

/** A function that the CPU backend gives by name only. */
export function cpuFunction(
  device: Pointer,
  name: string,
  result: string,
  parameters: readonly (string | TypeObject)[],
): (...args: unknown[]) => any {
  const api = ggml()
  const address = api.ggml_backend_reg_get_proc_address(api.ggml_backend_dev_backend_reg(device), name)
  if (address === null) throw new KvasirError('compute_failed', { reason: `the CPU backend has no ${name}` })
  return koffi.decode(address, koffi.proto(result, [...parameters])) as (...args: unknown[]) => any
}
