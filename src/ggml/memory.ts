/**
 * Address space from the operating system: reserved without being taken (the cache grows into it page by page), and files
 * mapped to be read in place. Through libc on Linux and macOS, kernel32 on Windows.
 */
import { closeSync, fstatSync, openSync } from 'node:fs'
import koffi from 'koffi'
import { KvasirError, reasonOf } from '../core/errors.ts'
import type { Pointer } from './bindings.ts'

export const PAGE_BYTES = 4096
export const HUGE_PAGE_BYTES: number = 2 ** 21
/** Whether {@link mapFile} maps files; elsewhere they are read into memory. */
export const CAN_MAP_FILES: boolean = process.platform !== 'win32'

const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 0x01
const MAP_PRIVATE = 0x02
const MAP_FIXED = 0x10
const DARWIN = process.platform === 'darwin'
const MAP_ANONYMOUS = DARWIN ? 0x1000 : 0x20
const MAP_NORESERVE = DARWIN ? 0x40 : 0x4000
const MADV_DONTNEED = 4
const MADV_HUGEPAGE = 14
const MADV_NOHUGEPAGE = 15
const MADV_COLLAPSE = 25

interface Memory {
  /** Zeroed memory that is taken page by page at the first write. */
  reserve(bytes: number): Pointer | null
  /** Gives the pages back; they read as zeros again. Address and length are whole pages. */
  discard(at: Pointer, bytes: number): void
  release(at: Pointer, bytes: number): void
  mapFile(descriptor: number, bytes: number): Pointer | null
  /** Asks for pages of 2 MiB, before the memory is first written. */
  preferHugePages(at: Pointer, bytes: number): void
  /** Puts memory that is in use into pages of 2 MiB. Address and length are whole ones. */
  collapse(at: Pointer, bytes: number): void
}

let memory: Memory | undefined

function posix(): Memory {
  const libc = koffi.load(DARWIN ? '/usr/lib/libSystem.B.dylib' : 'libc.so.6')
  const mmap = libc.func('void *mmap(void *at, size_t length, int prot, int flags, int fd, int64_t offset)')
  const munmap = libc.func('int munmap(void *at, size_t length)')
  const madvise = libc.func('int madvise(void *at, size_t length, int advice)')
  const anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
  const checked = (address: Pointer | null): Pointer | null =>
    address === null || address === 0xffff_ffff_ffff_ffffn ? null : address
  return {
    reserve(bytes) {
      const at = checked(mmap(null, bytes, PROT_READ | PROT_WRITE, anonymous, -1, 0))
      // Huge pages would take 2 MiB at the first token of every head.
      if (at !== null && !DARWIN) madvise(at, bytes, MADV_NOHUGEPAGE)
      return at
    },
    discard(at, bytes) {
      // On macOS MADV_DONTNEED is only a hint; a new mapping in the same place always gives the pages back.
      if (DARWIN) return void mmap(at, bytes, PROT_READ | PROT_WRITE, anonymous | MAP_FIXED, -1, 0)
      madvise(at, bytes, MADV_DONTNEED)
      madvise(at, bytes, MADV_NOHUGEPAGE)
    },
    collapse(at, bytes) {
      if (DARWIN) return
      madvise(at, bytes, MADV_HUGEPAGE)
      madvise(at, bytes, MADV_COLLAPSE) // Linux 6.1 and later; before, the kernel does it when it has time
    },
    release: (at, bytes) => void munmap(at, bytes),
    mapFile: (descriptor, bytes) => checked(mmap(null, bytes, PROT_READ, MAP_SHARED, descriptor, 0)),
    preferHugePages: (at, bytes) => void (DARWIN || madvise(at, bytes, MADV_HUGEPAGE)),
  }
}

function windows(): Memory {
  const kernel = koffi.load('kernel32.dll')
  const VirtualAlloc = kernel.func('void *VirtualAlloc(void *at, size_t length, uint32_t type, uint32_t protect)')
  const VirtualFree = kernel.func('bool VirtualFree(void *at, size_t length, uint32_t type)')
  const [COMMIT, RESERVE, DECOMMIT, RELEASE, READWRITE] = [0x1000, 0x2000, 0x4000, 0x8000, 0x04]
  return {
    reserve: (bytes) => VirtualAlloc(null, bytes, RESERVE | COMMIT, READWRITE),
    discard(at, bytes) {
      VirtualFree(at, bytes, DECOMMIT)
      VirtualAlloc(at, bytes, COMMIT, READWRITE)
    },
    release: (at) => void VirtualFree(at, 0, RELEASE),
    mapFile: () => null,
    preferHugePages: () => {}, // needs a privilege there
    collapse: () => {},
  }
}

function open(): Memory {
  memory ??= CAN_MAP_FILES ? posix() : windows()
  return memory
}

/** A stretch of reserved address space. */
export class Reservation implements Disposable {
  readonly at: Pointer
  readonly bytes: number
  #released = false

  constructor(bytes: number, what: string) {
    this.bytes = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
    const at = open().reserve(this.bytes)
    if (at === null) throw new KvasirError('out_of_memory', { bytes, what })
    this.at = at
  }

  /** Gives the pages that lie wholly in `[from, to)` (bytes from the start) back to the system. */
  discard(from: number, to: number): void {
    const first = Math.ceil(from / PAGE_BYTES) * PAGE_BYTES
    const last = Math.floor(to / PAGE_BYTES) * PAGE_BYTES
    if (last > first) open().discard(this.at + BigInt(first), last - first)
  }

  /**
   * Puts `[from, to)`, all of it in use, into pages of 2 MiB as far as whole ones lie within: reads at scattered addresses then
   * look up fewer of them.
   */
  collapse(from: number, to: number): void {
    const base = Number(this.at % BigInt(HUGE_PAGE_BYTES))
    const first = Math.ceil((base + from) / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES - base
    const last = Math.floor((base + to) / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES - base
    if (last > first) open().collapse(this.at + BigInt(first), last - first)
  }

  [Symbol.dispose](): void {
    if (this.#released) return
    this.#released = true
    open().release(this.at, this.bytes)
  }
}

/**
 * Asks for pages of 2 MiB for memory that will be written whole: with pages of 4 KiB, looking up addresses slows down products
 * with large matrices. A wish only; nothing happens where the system does not know it.
 */
export function preferHugePages(at: Pointer, bytes: number): void {
  const first = Math.ceil(Number(at) / PAGE_BYTES) * PAGE_BYTES
  const last = Math.floor((Number(at) + bytes) / PAGE_BYTES) * PAGE_BYTES
  if (last > first) open().preferHugePages(BigInt(first), last - first)
}

/** A file mapped to be read; null where the platform cannot, and for empty files. */
export function mapFile(path: string): (Disposable & { readonly at: Pointer; readonly bytes: number }) | null {
  let descriptor: number
  try {
    descriptor = openSync(path, 'r')
  } catch (error) {
    throw new KvasirError('file_error', { action: 'read', path, reason: reasonOf(error) }, { cause: error })
  }
  try {
    const bytes = fstatSync(descriptor).size
    const at = bytes > 0 ? open().mapFile(descriptor, bytes) : null
    return at === null ? null : { at, bytes, [Symbol.dispose]: () => open().release(at, bytes) }
  } finally {
    closeSync(descriptor)
  }
}
