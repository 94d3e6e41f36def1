/** How many clusters a layer gets, from the error that each number of them leaves. */

/** What a layer loses with 1, 2, … G clusters. */
export type ErrorCurve = readonly number[]

/**
 * The elbow: the number of clusters at which the curve lies deepest below the straight line between its ends, the smallest of
 * equal ones. Both axes count from 0 to 1.
 */
export function elbowOf(curve: ErrorCurve): number {
  const [most, least] = [curve[0]!, curve.at(-1)!]
  if (curve.length < 2 || most <= least) return 1
  let [best, deepest] = [1, 0]
  for (const [i, error] of curve.entries()) {
    const depth = 1 - i / (curve.length - 1) - (error - least) / (most - least)
    if (depth > deepest + 1e-9) [best, deepest] = [i + 1, depth]
  }
  return best
}

/** The elbow of `inertia`, and more clusters where these cost more than `most`. */
export function clustersOf(inertia: ErrorCurve, losses: ErrorCurve | undefined, most: number): number {
  const elbow = elbowOf(inertia)
  if (losses === undefined) return elbow
  const enough = losses.findIndex((loss, i) => i + 1 >= elbow && loss <= most)
  return enough < 0 ? losses.length : enough + 1
}

/**
 * So many clusters in all that they are `ratio` of the heads of all layers: beginning with one each, the next goes to the layer
 * that gains most by it. Of curves that bend both ways, the best number of steps counts as one.
 */
export function clustersWithin(curves: readonly ErrorCurve[], ratio: number): number[] {
  const counts = curves.map(() => 1)
  let left = Math.round(ratio * curves.reduce((sum, curve) => sum + curve.length, 0)) - counts.length
  while (left > 0) {
    let [best, at, by] = [-1, -1, 0]
    for (const [layer, curve] of curves.entries()) {
      for (let n = 1; n <= Math.min(left, curve.length - counts[layer]!); n++) {
        const gain = (curve[counts[layer]! - 1]! - curve[counts[layer]! - 1 + n]!) / n
        if (gain > best) [best, at, by] = [gain, layer, n]
      }
    }
    if (at < 0) break
    counts[at]! += by
    left -= by
  }
  return counts
}
