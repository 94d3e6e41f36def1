/** Tolerances, one per type of arithmetic, with why. */
export const TOLERANCE = {
  /** Sums of some hundred f32 products, against float64. */
  f32: 1e-4,
  /** Keys, values and probabilities rounded to 11 bits. */
  f16: 4e-3,
} as const

/** Largest difference, relative to the root mean square of what is expected. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} numbers instead of ${expected.length}`)
  let square = 0
  let most = 0
  for (let i = 0; i < expected.length; i++) {
    square += expected[i]! ** 2
    const difference = Math.abs(actual[i]! - expected[i]!)
    if (!(difference <= most)) most = difference // NaN stays
  }
  return most / Math.sqrt(square / expected.length)
}
