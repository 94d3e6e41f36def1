/** A file of weights, open for reading: what can be wrong with a path is said here, in one way for all formats. */
import { closeSync, fstatSync, openSync, readSync, statSync, type Stats } from 'node:fs'
import { KvasirError, reasonOf } from '../core/errors.ts'

const REASONS: Record<string, string> = {
  ENOENT: 'no such file or folder',
  ENOTDIR: 'a part of the path is not a folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ELOOP: 'its symbolic links go in a circle',
  ENAMETOOLONG: 'the name is too long',
}

const MAX_REASON = 300

/** Reasons quote names from the file, which may be anything: they become one line of bounded length. */
export function modelError(
  code: 'model_not_found' | 'model_invalid' | 'model_unsupported',
  path: string,
  { reason, cause }: { reason: string; cause?: unknown },
): KvasirError {
  const short = reason.length > MAX_REASON ? `${reason.slice(0, MAX_REASON)}…` : reason
  return new KvasirError(code, { path, reason: short.replace(/\p{Cc}/gu, '\u{fffd}') }, { cause })
}

function notFound(path: string, cause: unknown): KvasirError {
  return modelError('model_not_found', path, {
    reason: REASONS[(cause as NodeJS.ErrnoException).code ?? ''] ?? reasonOf(cause),
    cause,
  })
}

/** Errors: `model_not_found`. */
export function statPath(path: string): Stats {
  try {
    return statSync(path)
  } catch (error) {
    throw notFound(path, error)
  }
}

export class ModelFile implements Disposable {
  readonly path: string
  readonly size: number
  #fd: number

  private constructor(path: string, fd: number) {
    this.path = path
    this.#fd = fd
    this.size = fstatSync(fd).size
  }

  /** Errors: `model_not_found` for a path that is no file we may read, `model_invalid` for an empty one. */
  static open(path: string): ModelFile {
    const stats = statPath(path)
    if (stats.isDirectory()) throw modelError('model_not_found', path, { reason: 'it is a folder, not a file' })
    // Opening a pipe or a device would wait for ever, or never end.
    if (!stats.isFile()) throw modelError('model_not_found', path, { reason: 'it is not a regular file' })
    if (stats.size === 0) throw modelError('model_invalid', path, { reason: 'the file is empty' })
    try {
      return new ModelFile(path, openSync(path, 'r'))
    } catch (error) {
      throw notFound(path, error)
    }
  }

  /** Exactly `length` bytes. Errors: `model_invalid` if the file has fewer, `file_error` if the disk fails. */
  read(offset: number, length: number): Buffer {
    if (this.#fd < 0) throw new KvasirError('closed')
    if (offset + length > this.size) this.fail(`${length} bytes at byte ${offset} are beyond its end (${this.size} bytes)`)
    const bytes = Buffer.allocUnsafe(length)
    for (let done = 0; done < length;) {
      const n = this.#readSome(bytes, done, offset + done)
      if (n === 0) this.fail('it became shorter while it was read')
      done += n
    }
    return bytes
  }

  #readSome(bytes: Buffer, at: number, position: number): number {
    try {
      return readSync(this.#fd, bytes, at, bytes.length - at, position)
    } catch (error) {
      throw new KvasirError('file_error', { action: 'read', path: this.path, reason: reasonOf(error) }, { cause: error })
    }
  }

  fail(reason: string): never {
    throw modelError('model_invalid', this.path, { reason })
  }

  unsupported(reason: string): never {
    throw modelError('model_unsupported', this.path, { reason })
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
  }
}
