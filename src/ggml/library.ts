/**
 * Finds and opens ggml: the shared libraries that `@node-llama-cpp/<platform>` ships prebuilt.
 * They are opened once per process; this is the only singleton of the project.
 * Their struct layouts belong to one exact version, so any other version is refused.
 */
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import koffi, { type KoffiFunc, type LibraryHandle } from 'koffi'
import { KvasirError, reasonOf } from '../core/errors.ts'
import { log } from '../core/log.ts'
import { type Api, C_TYPES, type Declaration, GGML, GGML_REGISTRY, type Pointer } from './bindings.ts'

const GGML_VERSION = '0.25.1'

/** npm package and file endings by `process.platform`-`process.arch`. */
const PLATFORMS: Record<string, string> = {
  'linux-x64': 'linux-x64',
  'linux-arm64': 'linux-arm64',
  'linux-arm': 'linux-armv7l',
  'linux-riscv64': 'linux-riscv64',
  'darwin-arm64': 'mac-arm64-metal',
  'darwin-x64': 'mac-x64',
  'win32-x64': 'win-x64',
  'win32-arm64': 'win-arm64',
}

type GgmlApi = Api<typeof GGML> &
  Api<typeof GGML_REGISTRY> & {
    ggml_init(params: { mem_size: number; mem_buffer: Pointer | null; no_alloc: boolean }): Pointer | null
    gguf_init_from_file(path: string, params: { no_alloc: boolean; ctx: Pointer | null }): Pointer | null
    /** `ggml_backend_graph_compute` on a worker thread of Node; resolves with ggml's status. */
    graphComputeAsync(backend: Pointer, graph: Pointer): Promise<number>
    /** `ggml_backend_tensor_set` of the first `bytes` of `data`, likewise. */
    tensorSetAsync(tensor: Pointer, data: NodeJS.ArrayBufferView, bytes: number): Promise<void>
  }

interface Library {
  readonly api: GgmlApi
  /** The folder of the shared libraries. */
  readonly folder: string
}

let opened: Library | undefined

/** The functions of ggml; opens the library at the first call. */
export function ggml(): GgmlApi {
  return openLibrary().api
}

/** The folder that holds ggml's (and libllama's) shared libraries. */
export function libraryFolder(): string {
  return openLibrary().folder
}

/** Path of the shared library `name` (`ggml-base`, `llama`, …) in `folder`. */
export function libraryFile(folder: string, name: string): string {
  const pattern = new RegExp(`^(lib)?${name}(\\.v[\\d.]+)?\\.(so|dylib|dll)$`)
  const file = readdirSync(folder).find((entry) => pattern.test(entry))
  if (file === undefined)
    throw new KvasirError('library_missing', { platform: platform(), reason: `${folder} holds no lib${name}` })
  return join(folder, file)
}

/** Declares `table`'s functions of an open library. */
export function declare<T extends Record<string, Declaration>>(library: LibraryHandle, table: T): Api<T> {
  const bind = ([name, [result, ...parameters]]: [string, Declaration]) => [
    name,
    library.func(
      name,
      C_TYPES[result],
      parameters.map((parameter) => C_TYPES[parameter]),
    ),
  ]
  return Object.fromEntries(Object.entries(table).map(bind)) as Api<T>
}

function platform(): string {
  return `${process.platform}-${process.arch}`
}

function findFolder(): string {
  const name = PLATFORMS[platform()]
  if (name === undefined)
    throw new KvasirError('library_missing', { platform: platform(), reason: 'no prebuilt libraries exist for it' })
  try {
    const entry = createRequire(import.meta.url).resolve(`@node-llama-cpp/${name}`) // <package>/dist/index.js
    const folder = join(dirname(entry), '..', 'bins', name)
    if (existsSync(folder)) return folder
  } catch (error) {
    throw new KvasirError('library_missing', { platform: platform(), reason: reasonOf(error) }, { cause: error })
  }
  throw new KvasirError('library_missing', { platform: platform(), reason: `@node-llama-cpp/${name} holds no binaries` })
}

function openLibrary(): Library {
  if (opened) return opened
  const folder = findFolder()
  const basePath = libraryFile(folder, 'ggml-base')
  const base = koffi.load(basePath, { global: true })
  const version = declare(base, { ggml_version: GGML.ggml_version }).ggml_version()
  if (version !== GGML_VERSION) throw new KvasirError('library_version', { found: version, path: basePath, needed: GGML_VERSION })
  const registry = koffi.load(libraryFile(folder, 'ggml'), { global: true })

  const initParams = koffi.struct({ mem_size: 'size_t', mem_buffer: 'void *', no_alloc: 'bool' })
  const ggufParams = koffi.struct({ no_alloc: 'bool', ctx: 'void *' })
  const functions = declare(base, GGML)
  const set = promised(functions.ggml_backend_tensor_set)
  const api: GgmlApi = {
    ...functions,
    ...declare(registry, GGML_REGISTRY),
    ggml_init: base.func('ggml_init', 'void *', [initParams]) as unknown as GgmlApi['ggml_init'],
    gguf_init_from_file: base.func('gguf_init_from_file', 'void *', [
      'const char *',
      ggufParams,
    ]) as unknown as GgmlApi['gguf_init_from_file'],
    graphComputeAsync: promised(functions.ggml_backend_graph_compute),
    tensorSetAsync: (tensor, data, bytes) => set(tensor, data, 0, bytes),
  }
  routeLog(base, 'ggml_log_set')
  api.ggml_backend_load_all_from_path(folder)
  opened = { api, folder }
  return opened
}

/** A C function called on a worker thread of Node. */
function promised<P extends unknown[], R>(func: (...args: P) => R): (...args: P) => Promise<R> {
  return (...args) =>
    new Promise((resolve, reject) => {
      ;(func as KoffiFunc<typeof func>).async(...args, (error: unknown, result: R) => (error ? reject(error) : resolve(result)))
    })
}

let lastError = ''

/** ggml's complaints since the previous call: the reason when one of its functions returned nothing. */
export function takeGgmlError(): string {
  const reason = lastError.trim().replace(/\s+/g, ' ')
  lastError = ''
  return reason
}

const GGML_LOG_LEVEL_ERROR = 4
const GGML_LOG_LEVEL_CONT = 5 // goes on with the line before

/** ggml's log becomes our debug lines, whatever its level: what a user must know reaches them as an error of ours. */
export function routeLog(library: LibraryHandle, setter: 'ggml_log_set' | 'llama_log_set'): void {
  const callback = koffi.pointer(koffi.proto('void', ['int', 'const char *', 'void *']))
  let level = 0
  let line = ''
  const receive = (at: number, text: string): void => {
    if (at !== GGML_LOG_LEVEL_CONT) level = at
    if (level === GGML_LOG_LEVEL_ERROR) lastError = (lastError + text).slice(-500)
    line += text
    if (!line.endsWith('\n')) return
    log.debug(`ggml: ${line.trimEnd()}`)
    line = ''
  }
  library.func(setter, 'void', [callback, 'void *'])(koffi.register(receive, callback), null)
}
