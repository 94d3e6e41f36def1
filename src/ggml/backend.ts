/** The device that computes: its threads, its buffers, and the layouts of weights it is fastest with. */
import { setImmediate } from 'node:timers/promises'
import koffi, { type TypeObject } from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from './bindings.ts'
import type { Graph } from './graph.ts'
import { ggml, takeGgmlError } from './library.ts'

const DEVICE_TYPE_CPU = 0
const STATUS_SUCCESS = 0
const STATUS_ABORTED = 1

/** How long an idle thread spins before it sleeps (0…100), ggml's own default: the pause between two steps is short. */
const POLL = 50

export class Backend implements Disposable {
  readonly ptr: Pointer
  readonly device: Pointer
  readonly nThreads: number
  /** Ordinary memory of this device. */
  readonly bufferType: Pointer
  /** Layouts that some operations are faster with (AMX, repacked rows), best first. */
  readonly extraBufferTypes: readonly Pointer[]
  readonly #threadpool: Pointer
  readonly #freeThreadpool: (pool: Pointer) => void
  /** A C string: empty, or not when the running computation shall end; see {@link interrupt}. */
  readonly #interrupted: Pointer
  /** Seconds spent inside ggml's compute. */
  computeSeconds = 0

  constructor(nThreads: number) {
    const api = ggml()
    const device = api.ggml_backend_dev_by_type(DEVICE_TYPE_CPU)
    const ptr = device === null ? null : api.ggml_backend_dev_init(device, null)
    if (device === null || ptr === null) throw new KvasirError('compute_failed', { reason: `no CPU backend: ${takeGgmlError()}` })
    this.ptr = ptr
    this.device = device
    this.nThreads = nThreads
    this.bufferType = api.ggml_backend_dev_buffer_type(device)
    this.extraBufferTypes = extraBufferTypes(device)

    const params = koffi.struct({
      cpumask: koffi.array('bool', 512),
      n_threads: 'int',
      prio: 'int',
      poll: 'uint32_t',
      strict_cpu: 'bool',
      paused: 'bool',
    })
    const newPool = symbol(device, 'ggml_threadpool_new', 'void *', [koffi.pointer(params)])
    const setPool = symbol(device, 'ggml_backend_cpu_set_threadpool', 'void', ['void *', 'void *'])
    const setThreads = symbol(device, 'ggml_backend_set_n_threads', 'void', ['void *', 'int'])
    const setAbort = symbol(device, 'ggml_backend_set_abort_callback', 'void', ['void *', 'void *', 'void *'])
    this.#freeThreadpool = symbol(device, 'ggml_threadpool_free', 'void', ['void *'])
    const cpumask = Array.from({ length: 512 }, () => false)
    this.#threadpool = newPool({ cpumask, n_threads: nThreads, prio: 0, poll: POLL, strict_cpu: false, paused: false })
    setPool(ptr, this.#threadpool)
    setThreads(ptr, nThreads)

    // ggml asks `bool abort(void *data)` between operations. libc's strlen is such a function: true while the string at
    // `data` is not empty. So a computation can be stopped from here without a call into JavaScript per operation.
    this.#interrupted = koffi.alloc('char', 2) as Pointer
    this.#setInterrupted(0)
    const strlen = cLibrary().symbol('strlen', 'void *')
    setAbort(ptr, strlen, this.#interrupted)
  }

  /**
   * Computes `graph`, and gives the seconds that took. One graph at a time. Rejects if it is interrupted. The event loop goes
   * on meanwhile; only what `isShort` is computed in its own turn, for handing a graph to another thread costs a millisecond.
   */
  async compute(graph: Graph, isShort: boolean): Promise<number> {
    if (isShort) await setImmediate() // a turn for everybody else
    const start = performance.now()
    const api = ggml()
    const compute = isShort ? api.ggml_backend_graph_compute(this.ptr, graph.ptr) : api.graphComputeAsync(this.ptr, graph.ptr)
    const status = await compute
    const seconds = (performance.now() - start) / 1000
    this.computeSeconds += seconds
    this.#setInterrupted(0)
    if (status === STATUS_SUCCESS) return seconds
    if (status === STATUS_ABORTED) throw new KvasirError('aborted')
    throw new KvasirError('compute_failed', { reason: takeGgmlError() || `ggml status ${status}` })
  }

  /** Ends the running computation at its next operation. */
  interrupt(): void {
    this.#setInterrupted(1)
  }

  #setInterrupted(value: 0 | 1): void {
    koffi.encode(this.#interrupted, koffi.array('uint8_t', 2), [value, 0])
  }

  [Symbol.dispose](): void {
    ggml().ggml_backend_free(this.ptr)
    this.#freeThreadpool(this.#threadpool)
    koffi.free(this.#interrupted)
  }
}

function symbol(
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

function extraBufferTypes(device: Pointer): Pointer[] {
  const list = symbol(device, 'ggml_backend_dev_get_extra_bufts', 'void *', ['void *'])(device) as Pointer | null
  const found: Pointer[] = []
  while (list !== null) {
    const next = koffi.decode(list, found.length * 8, 'void *') as Pointer | null
    if (next === null) break
    found.push(next)
  }
  return found
}

function cLibrary(): ReturnType<typeof koffi.load> {
  return koffi.load({ linux: 'libc.so.6', darwin: '/usr/lib/libSystem.B.dylib' }[process.platform as string] ?? 'msvcrt.dll')
}
