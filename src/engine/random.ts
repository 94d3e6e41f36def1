/** Seeded random numbers: sfc32, the same sequence for the same seed everywhere. */
import { randomInt } from 'node:crypto'

/** Uniform numbers in [0, 1). A seed of -1 draws one. */
export function random(seed: number): () => number {
  const start = seed < 0 ? randomInt(2 ** 32) : seed
  let [a, b, c, d] = [start | 0, Math.floor(start / 2 ** 32) | 0, 0x9e3779b9 | 0, 1]
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = ((c << 21) | (c >>> 11)) + t
    return (t >>> 0) / 2 ** 32
  }
  for (let i = 0; i < 12; i++) next() // lets close seeds part
  return next
}
