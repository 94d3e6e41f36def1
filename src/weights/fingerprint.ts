/**
 * What tells a model from others: made of the names, types and shapes of its tensors and of both ends of their data, so that it
 * takes milliseconds for any size. The file's name and metadata do not count. What is trained or calibrated for a model
 * carries it, and is refused by another one.
 */
import { createHash } from 'node:crypto'
import { readTensor } from './read-tensor.ts'
import type { WeightSource } from './source.ts'

/** Bytes at each end. Training changes all of a tensor, so some of them are enough. */
const END_BYTES = 1024

/** 32 hexadecimal digits. Errors: `file_error`, `model_invalid`. */
export function fingerprint(source: WeightSource): string {
  const hash = createHash('sha256')
  for (const name of [...source.tensors.keys()].toSorted()) {
    const info = source.tensors.get(name)!
    hash.update(`${name} ${info.type} ${info.ne.join(' ')}\n`)
    const ends = Math.min(END_BYTES, info.nBytes)
    hash.update(readTensor(source, info, { length: ends })).update(readTensor(source, info, { from: info.nBytes - ends }))
  }
  return hash.digest('hex').slice(0, 32)
}
