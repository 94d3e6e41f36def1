/** The bytes of a tensor, read from its file into memory of their own. */
import { closeSync, openSync, readSync } from 'node:fs'
import { KvasirError, reasonOf } from '../core/errors.ts'
import type { TensorInfo, WeightSource } from './source.ts'

interface Part {
  readonly from?: number
  readonly length?: number
}

/** All of them, or `length` from byte `from` on. Errors: `file_error`; `model_invalid` where the file has become shorter. */
export function readTensor(source: WeightSource, info: TensorInfo, part: Part = {}): Uint8Array {
  const { from = 0, length = info.nBytes - from } = part
  const bytes = new Uint8Array(length)
  const path = source.files[info.file]!
  let descriptor: number | undefined
  try {
    descriptor = openSync(path, 'r')
    for (let at = 0; at < length;) {
      const n = readSync(descriptor, bytes, at, Math.min(length - at, 2 ** 30), info.offset + from + at)
      if (n === 0) throw new KvasirError('model_invalid', { path, reason: `it ends within '${info.name}'` })
      at += n
    }
  } catch (error) {
    if (error instanceof KvasirError) throw error
    throw new KvasirError('file_error', { action: 'read', path, reason: reasonOf(error) }, { cause: error })
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
  return bytes
}
