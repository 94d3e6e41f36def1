/** The device that computes: its threads, its buffers, and the layouts of weights it is fastest with. */
import { setImmediate } from 'node:timers/promises'
import koffi from 'koffi'
import { KvasirError } from '../core/errors.ts'
import type { Pointer } from './bindings.ts'
import { FairShare } from './fair-share.ts'
import type { Graph } from './graph.ts'
import { ggml, takeGgmlError } from './library.ts'
import { cpuFunction, Threadpool } from './threadpool.ts'

export const DEVICE_TYPE_CPU = 0
export const STATUS_SUCCESS = 0
const STATUS_ABORTED = 1

/** Computes a graph by calling `compute` with views that together are all of it, in order; gives the first status that is none of success. */
export type InPieces = (graph: Graph, compute: (view: Uint8Array) => number) => number

export class Backend implements Disposable {
  readonly ptr: Pointer
  readonly device: Pointer
  /** Threads that compute when no other program wants their processors. */
  readonly nThreads: number
  /** Ordinary memory of this device. */
  readonly bufferType: Pointer
  /** Layouts that some operations are faster with (AMX, repacked rows), best first. */
  readonly extraBufferTypes: readonly Pointer[]
  readonly #share: FairShare
  #threads: Threadpool
  readonly #useThreads: (threads: Threadpool) => void
  /** A C string: empty, or not when the running computation shall end; see {@link interrupt}. */
  readonly #interrupted: Pointer
  #isInterrupted = false
  /** Seconds spent inside ggml's compute. */
  computeSeconds = 0
  /** Who computes graphs piece by piece, to look at them; null where nobody does. */
  inPieces: InPieces | null = null

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

    const setPool = cpuFunction(device, 'ggml_backend_cpu_set_threadpool', 'void', ['void *', 'void *'])
    const setThreads = cpuFunction(device, 'ggml_backend_set_n_threads', 'void', ['void *', 'int'])
    const setAbort = cpuFunction(device, 'ggml_backend_set_abort_callback', 'void', ['void *', 'void *', 'void *'])
    this.#useThreads = (threads) => {
      setPool(ptr, threads.pointer)
      setThreads(ptr, threads.nThreads)
    }
    this.#share = new FairShare(nThreads)
    this.#threads = new Threadpool(device, nThreads)
    this.#useThreads(this.#threads)

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
    this.#takeShare()
    const start = performance.now()
    const api = ggml()
    const now = (which: Pointer | Uint8Array) => api.ggml_backend_graph_compute(this.ptr, which)
    const status = this.inPieces
      ? this.inPieces(graph, now)
      : isShort
        ? now(graph.ptr)
        : await api.graphComputeAsync(this.ptr, graph.ptr)
    const seconds = (performance.now() - start) / 1000
    this.computeSeconds += seconds
    if (this.#isInterrupted) this.#setInterrupted(0)
    if (status === STATUS_SUCCESS) return seconds
    if (status === STATUS_ABORTED) throw new KvasirError('aborted')
    throw new KvasirError('compute_failed', { reason: takeGgmlError() || `ggml status ${status}` })
  }

  /** A pool of another size where others want our processors, or no longer do: threads that a pool has to spare would spin. */
  #takeShare(): void {
    const nThreads = this.#share.threadsNow()
    if (nThreads === this.#threads.nThreads) return
    using _before = this.#threads
    this.#threads = new Threadpool(this.device, nThreads)
    this.#useThreads(this.#threads)
  }

  /** Ends the running computation at its next operation. */
  interrupt(): void {
    this.#setInterrupted(1)
  }

  #setInterrupted(value: 0 | 1): void {
    this.#isInterrupted = value === 1
    koffi.encode(this.#interrupted, koffi.array('uint8_t', 2), [value, 0])
  }

  [Symbol.dispose](): void {
    ggml().ggml_backend_free(this.ptr)
    this.#share[Symbol.dispose]()
    this.#threads[Symbol.dispose]()
    koffi.free(this.#interrupted)
  }
}

function extraBufferTypes(device: Pointer): Pointer[] {
  const list = cpuFunction(device, 'ggml_backend_dev_get_extra_bufts', 'void *', ['void *'])(device) as Pointer | null
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
