/** Seeded numbers for tests. */
import { random } from '../../src/core/random.ts'

/** `n` numbers, roughly normal. */
export function normals(n: number, seed: number): Float32Array {
  const next = random(seed)
  return Float32Array.from({ length: n }, () => next() + next() + next() + next() - 2)
}
