/**
 * Heads put into groups by how alike they are, from nothing but the products of their features with each other: a Gram matrix
 * holds every distance. Neither way takes chances, so the same heads always give the same groups.
 */

/** n heads: f64[n · n], the product of the features of heads i and j at i · n + j. */
export interface Gram {
  readonly n: number
  readonly values: Float64Array
}

/** Groups of heads, numbered by their first members. Plain JSON. */
export type HeadClusters = {
  /** The representative of each group, its lowest head, ascending. */
  readonly heads: readonly number[]
  /** The group of every head. */
  readonly of: readonly number[]
}

/** Ways to group: `average` linkage of the angle between features, or the nearest of k means. */
export const CLUSTERINGS = ['agglomerative', 'kmeans'] as const
export type Clustering = (typeof CLUSTERINGS)[number]

/** The products of features with each other. */
export function gramOf(features: readonly Float64Array[]): Gram {
  const n = features.length
  const values = new Float64Array(n * n)
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0
      for (let at = 0; at < features[i]!.length; at++) sum += features[i]![at]! * features[j]![at]!
      values[i * n + j] = sum
      values[j * n + i] = sum
    }
  }
  return { n, values }
}

/** Exactly `count` groups, 1 ≤ count ≤ n. */
export function clusterHeads(gram: Gram, count: number, how: Clustering): HeadClusters {
  return numbered(how === 'kmeans' ? kMeans(gram, count).at(-1)!.of : agglomerate(gram, count))
}

/** Starts with every head by itself and joins the two groups whose members are nearest on average (1 - cosine) until few are left. */
function agglomerate({ n, values }: Gram, count: number): number[] {
  const length = Float64Array.from({ length: n }, (_, i) => Math.sqrt(values[i * n + i]!) || 1)
  const distance = values.map((value, at) => 1 - value / (length[Math.floor(at / n)]! * length[at % n]!))
  const groups = Array.from({ length: n }, (_, i) => [i])
  while (groups.length > count) {
    let [best, a, b] = [Infinity, 0, 1]
    for (let i = 1; i < groups.length; i++) {
      for (let j = 0; j < i; j++) {
        const mean = meanOf(distance, n, groups[i]!, groups[j]!)
        if (mean < best) [best, a, b] = [mean, j, i]
      }
    }
    groups[a]!.push(...groups.splice(b, 1)[0]!)
  }
  const of = Array<number>(n).fill(0)
  for (const [group, heads] of groups.entries()) for (const head of heads) of[head] = group
  return of
}

export interface Means {
  readonly of: readonly number[]
  /** Squared distances of the heads to the means of their groups, summed. */
  readonly inertia: number
}

/**
 * K-means for 1, 2, … `most` groups. Each begins as the one before, with the head that lies farthest from its mean as a group
 * of its own, so more groups never fit worse.
 */
export function kMeans(gram: Gram, most: number): Means[] {
  const results: Means[] = []
  let of = Array<number>(gram.n).fill(0)
  for (let count = 1; count <= most; count++) {
    if (count > 1) of[farthest(gram, of, count - 1)] = count - 1
    of = settled(gram, of, count)
    const squares = squaresTo(gram, of, count)
    results.push({ of: [...of], inertia: of.reduce((sum, group, i) => sum + Math.max(0, squares(i, group)), 0) })
  }
  return results
}

/** Moves heads to the nearest mean until none moves; the last head of a group stays. */
function settled(gram: Gram, start: readonly number[], count: number): number[] {
  const of = [...start]
  for (let isMoving = true, round = 0; isMoving && round < 100; round++) {
    isMoving = false
    const squares = squaresTo(gram, of, count)
    const sizes = Array.from({ length: count }, (_, group) => of.filter((g) => g === group).length)
    for (let i = 0; i < gram.n; i++) {
      let nearest = of[i]!
      for (let group = 0; group < count; group++) {
        if (squares(i, group) < squares(i, nearest) - 1e-12 * gram.values[i * gram.n + i]!) nearest = group
      }
      if (nearest === of[i] || sizes[of[i]!] === 1) continue
      sizes[of[i]!]!--
      sizes[nearest]!++
      of[i] = nearest
      isMoving = true
    }
  }
  return of
}

/** The head that lies farthest from the mean of its group, among those that are not alone. */
function farthest(gram: Gram, of: readonly number[], count: number): number {
  const squares = squaresTo(gram, of, count)
  const isAlone = (i: number) => of.filter((group) => group === of[i]).length === 1
  let [best, most] = [0, -Infinity]
  for (let i = 0; i < gram.n; i++) {
    const square = isAlone(i) ? -Infinity : squares(i, of[i]!)
    if (square > most) [best, most] = [i, square]
  }
  return best
}

/** ‖x_i - mean of a group‖² = K_ii - 2 · mean_j K_ij + mean_jj' K_jj'. */
function squaresTo({ n, values }: Gram, of: readonly number[], count: number): (i: number, group: number) => number {
  const members = Array.from({ length: count }, (_, group) => [...of.keys()].filter((i) => of[i] === group))
  const within = members.map((heads) => meanOf(values, n, heads, heads))
  const between = Array.from({ length: n }, (_, i) => members.map((heads) => meanOf(values, n, [i], heads)))
  return (i, group) => values[i * n + i]! - 2 * between[i]![group]! + within[group]!
}

/** Mean of a matrix's elements at some rows and columns. */
function meanOf(values: Float64Array, n: number, rows: readonly number[], columns: readonly number[]): number {
  let sum = 0
  for (const i of rows) for (const j of columns) sum += values[i * n + j]!
  return sum / (rows.length * columns.length)
}

function numbered(groups: readonly number[]): HeadClusters {
  const heads = [...groups.keys()].filter((i) => groups.indexOf(groups[i]!) === i)
  return { heads, of: groups.map((group) => heads.findIndex((head) => groups[head] === group)) }
}
