/**
 * ggml's threads for libllama's contexts. Without a pool of its own a context starts and joins threads in every step,
 * which costs several times the step of a small model; llama-bench and llama-server attach one too.
 */
import koffi from 'koffi'
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'

const DEVICE_TYPE_CPU = 0
/** llama-bench's default: an idle thread spins for about 0.15 s before it sleeps. */
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

const protoNew = koffi.proto('void *', [koffi.pointer(params)])
const protoFree = koffi.proto('void', ['void *'])

export class Threadpool implements Disposable {
  readonly pointer: Pointer

  constructor(nThreads: number) {
    const cpumask = Array.from({ length: MAX_THREADS }, () => false)
    const options = { cpumask, n_threads: nThreads, prio: 0, poll: POLL, strict_cpu: false, paused: false }
    this.pointer = koffi.call(symbol('ggml_threadpool_new'), protoNew, options) as Pointer
  }

  [Symbol.dispose](): void {
    koffi.call(symbol('ggml_threadpool_free'), protoFree, this.pointer)
  }
}

function symbol(name: string): Pointer {
  const api = ggml()
  const device = api.ggml_backend_dev_by_type(DEVICE_TYPE_CPU)
  const found = device && api.ggml_backend_reg_get_proc_address(api.ggml_backend_dev_backend_reg(device), name)
  if (!found) throw new Error(`the CPU backend has no ${name}`)
  return found
}
