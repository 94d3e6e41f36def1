/**
 * HiP's tree search (section 3 and appendix of the paper, methods of one query block): which blocks of keys score high, found
 * by halving ranges of blocks and keeping the best halves. In graph operations, for many lists of ranges at once.
 *
 * A list belongs to a query block and a head; L lists, nL of them per KV head: L = nL · G. A range ("slot") is a pair of f32
 * numbers, exact up to 2^24: the block it starts with, and how many blocks it is long.
 */
import type { Graph } from '../../../ggml/graph.ts'
import { F16, F32, I32, Q8_0 } from '../../../ggml/types.ts'
import type { Tensor } from '../../../ggml/tensor.ts'

export interface Tree {
  /** Slots: how many blocks are chosen in the end. */
  readonly nSlots: number
  /** Which block of a half is scored for the whole half. */
  readonly representative: 'center' | 'first' | 'last'
  /** The first blocks, which are always chosen. */
  readonly nSinkBlocks: number
  /** Keys scored of a block. */
  readonly nSampled: number
}

export interface Search {
  /** f32[d, R, nL, G]: the rows that vote. */
  readonly q: Tensor
  /** f32[nSlots, L], by {@link slotStart}. */
  readonly starts: Tensor
  readonly lengths: Tensor
  readonly nRounds: number
  /** The sampled keys of blocks f32[n, L] → `[d, n · nSampled, nL, G]` as they are stored. This is the one place that reads keys to search. */
  readonly keysOf: (blocks: Tensor) => Tensor
}

/** Above any score, and still exact enough to be taken off again where nothing is left of a slot. */
const FAR = 1e30
/** Beyond every block number. */
const LAST = 2 ** 22

/** Rounds until no slot is longer than one block. */
export function nRounds(nBlocks: number, nSlots: number): number {
  return nBlocks <= nSlots ? 0 : Math.ceil(Math.log2(Math.ceil(nBlocks / nSlots)))
}

/** Keys that a search of one list reads. A half that shares its parent's representative has its score too. */
export function keysSearched({ nSlots, nSampled, representative }: Tree, rounds: number): number {
  const nScored = rounds === 0 ? 0 : representative === 'center' ? 2 * rounds : rounds + 1
  return nScored * nSlots * nSampled
}

/** β_i = ⌊nBlocks · i / nSlots⌋, where slot i begins: slots are of nearly equal length, and some empty if blocks are few. */
export function slotStart(i: number, nBlocks: number, nSlots: number): number {
  return Math.floor((nBlocks * i) / nSlots)
}

/** The chosen blocks, f32[nSlots, L], ascending and unique; empty slots come last and hold some block or other. */
export function searchTree(g: Graph, tree: Tree, search: Search): Tensor {
  let { starts, lengths } = search
  let inherited = tree.representative === 'center' ? null : score(g, tree, search, starts, lengths)
  for (let round = 0; round < search.nRounds; round++) {
    const half = g.floor(g.scale(lengths, 0.5))
    const middle = g.add(starts, half)
    const rest = g.sub(lengths, half)
    const children = { starts: g.concat(starts, middle, 0), lengths: g.concat(half, rest, 0) } // [2 · nSlots, L]
    const scores = childScores(g, tree, search, { children, inherited, left: [starts, half], right: [middle, rest] })
    const best = g.topK(g.add(scores, priority(g, tree, children)), tree.nSlots)
    starts = pick(g, children.starts, best)
    lengths = pick(g, children.lengths, best)
    if (inherited) inherited = pick(g, scores, best)
  }
  return pick(g, starts, g.argsort(g.add(starts, isEmpty(g, lengths, LAST))))
}

type Slots = readonly [starts: Tensor, lengths: Tensor]

interface Children {
  readonly children: { readonly starts: Tensor; readonly lengths: Tensor }
  readonly inherited: Tensor | null
  readonly left: Slots
  readonly right: Slots
}

function childScores(g: Graph, tree: Tree, search: Search, { children, inherited, left, right }: Children): Tensor {
  if (inherited === null) return score(g, tree, search, children.starts, children.lengths)
  return tree.representative === 'first'
    ? g.concat(inherited, score(g, tree, search, ...right), 0)
    : g.concat(score(g, tree, search, ...left), inherited, 0)
}

/** The largest product of a voting row and a sampled key of the slot's representative: f32[n, L]. */
function score(g: Graph, { representative, nSampled }: Tree, { q, keysOf }: Search, starts: Tensor, lengths: Tensor): Tensor {
  const [n, L] = starts.ne
  const block =
    representative === 'first'
      ? starts
      : representative === 'last'
        ? g.relu(g.scaleBias(g.add(starts, lengths), 1, -1))
        : g.add(starts, g.floor(g.scale(lengths, 0.5)))
  const products = multiply(g, q, keysOf(block)) // [R, n · nSampled, nL, G]
  const size = q.ne[1] * nSampled
  return largest(g, g.reshape(products, size, n, L))
}

/** From so many voting rows on, products are of 8-bit integers, as in the authors' kernel; ggml has a scale for each 32. */
const INT8_ROWS = 16

function multiply(g: Graph, q: Tensor, keys: Tensor): Tensor {
  if (keys.type !== F16) return g.mulMat(q, keys)
  const isInt8 = q.ne[1] >= INT8_ROWS && q.ne[0] % 32 === 0
  return isInt8 ? g.mulMat(g.cast(q, Q8_0), g.cast(keys, F32)) : g.mulMat(g.cast(q, F16), keys)
}

/** Up to so many numbers, pooling is as fast as all that could go before it. */
const POOLED = 16

/**
 * The largest along dimension 0: f32[m, n, L] → f32[n, L]. ggml pools on one thread; max(a, b) = relu(a - b) + b runs on all of
 * them, and halves what is left to pool. It rounds, as the products did.
 */
function largest(g: Graph, x: Tensor): Tensor {
  const [m, n, L] = x.ne
  if (m <= POOLED || m % 2 === 1) return g.reshape(m === 1 ? x : g.maxPool(x, m), n, L)
  const half = (at: number) => g.view(x, [m / 2, n, L, 1], [x.nb[1], x.nb[2], x.nb[3]], at * x.nb[0])
  const [a, b] = [half(0), half(m / 2)]
  return largest(g, g.add(g.relu(g.sub(a, b)), b))
}

/** What is added to scores so that sinks come first and empty slots last. */
function priority(g: Graph, { nSinkBlocks }: Tree, { starts, lengths }: Children['children']): Tensor {
  const empty = isEmpty(g, lengths, -2 * FAR)
  if (nSinkBlocks === 0) return empty
  return g.add(g.scale(g.step(g.scaleBias(starts, -1, nSinkBlocks - 0.5)), FAR), empty)
}

/** `value` where a slot is empty, else 0. */
function isEmpty(g: Graph, lengths: Tensor, value: number): Tensor {
  return g.scaleBias(g.step(g.scaleBias(lengths, 1, -0.5)), -value, value)
}

/** f32[n, L] at i32[m, L] → f32[m, L]. */
function pick(g: Graph, x: Tensor, index: Tensor): Tensor {
  return g.reshape(g.getRows(g.reshape(x, 1, x.ne[0], x.ne[1]), index), index.ne[0], index.ne[1])
}

/** Every `size`-th number from f32 `blocks` [n, L] on, with `offsets` f32[c] added to each: f32[c · n, L]. */
export function expand(g: Graph, blocks: Tensor, size: number, offsets: Tensor): Tensor {
  const [n, L] = blocks.ne
  const c = offsets.ne[0]
  const firsts = g.reshape(g.scale(blocks, size), 1, n, L)
  return g.reshape(g.add(c === 1 ? firsts : g.repeat(firsts, c, n, L), offsets), c * n, L)
}

export function toIndex(g: Graph, numbers: Tensor, ...ne: readonly number[]): Tensor {
  return g.reshape(g.cast(numbers, I32), ...ne)
}
