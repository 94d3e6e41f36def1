/** Seeded random numbers: sfc32, the same sequence for the same seed everywhere. */
import { randomInt } from 'node:crypto'

/** Uniform 32-bit numbers. The first `nLeftOut` of the sequence are left out: seeds that differ in one bit start alike. */
export function randomBits(seed: number, nLeftOut = 16): () => number {
  let [a, b, c, counter] = [seed | 0, Math.floor(seed / 2 ** 32) | 0, 0x9e3779b9 | 0, 1]
  const next = (): number => {
    const sum = (a + b + counter) | 0
    counter = (counter + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (((c << 21) | (c >>> 11)) + sum) | 0
    return sum >>> 0
  }
  for (let i = 0; i < nLeftOut; i++) next()
  return next
}

/** Uniform numbers in [0, 1). A seed of -1 draws one. */
export function random(seed: number): () => number {
  // 12 and not 16 as above, so that seeds that people have noted give the texts they gave.
  const bits = randomBits(seed < 0 ? randomInt(2 ** 32) : seed, 12)
  return () => bits() / 2 ** 32
}
