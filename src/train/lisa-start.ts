/** What a LiSA adapter begins as: shared attention, with keys of low rank that are a part of the layer's own. */
import { layersOf, outside, range } from '../attention/share/layer-spans.ts'
import { lisaShapes, type LisaSizes, type LisaTensor } from '../attention/share/lisa/adapter-file.ts'
import { KvasirError } from '../core/errors.ts'
import { random } from '../core/random.ts'
import { BF16, F16, F32 } from '../ggml/types.ts'
import { llama } from '../models/llama.ts'
import type { GgufSource } from '../weights/gguf.ts'
import { readFloats } from './parameters.ts'

export interface LisaPlan extends LisaSizes {
  /** Replaced layers, ascending. */
  readonly layers: readonly number[]
  /** Of what is random at the start. */
  readonly seed: number
}

export interface LisaChoice {
  /** As `2-4` or `10-20/24`; `auto` is the second half of the layers. */
  readonly layers: string
  /** Left out, the largest power of two that makes heads six times smaller; and a quarter of the heads, at least 8. */
  readonly rank?: number | undefined
  readonly hidden?: number | undefined
  readonly seed?: number | undefined
}

const LEAST_HIDDEN = 8

/** Errors: `layers_unusable`, `usage`, and those of reading the model. */
export function lisaPlan(base: GgufSource, { layers: text, rank, hidden, seed = 0 }: LisaChoice): LisaPlan {
  const fail = (reason: string): never => {
    throw new KvasirError('layers_unusable', { reason })
  }
  const { nLayer, headDim, nHead, sharing } = llama.hyperparameters(base).shape
  if (sharing) fail('the model shares keys and values already')
  if (!/^[\d/-]+$|^auto$/.test(text)) fail(`'${text}' are no layers; they are written 2-4, several spans 10-20/24`)
  const layers = layersOf(text, range(Math.max(1, Math.ceil(nLayer / 2)), nLayer - 1))
  const beyond = outside(layers, nLayer)
  if (beyond) fail(beyond)
  if (layers.length === 0) fail('there are none')
  if (layers[0] === 0) fail('layer 0 has none before it whose scores it could take')
  const r = rank ?? Math.max(2, 2 ** Math.floor(Math.log2(headDim / 6)))
  if (r % 2 !== 0 || r < 2 || r > headDim)
    throw new KvasirError('usage', { reason: `the rank must be even, from 2 to the ${headDim} elements of a head` })
  return { layers, rank: r, hidden: hidden ?? Math.max(LEAST_HIDDEN, Math.floor(nHead / 4)), seed }
}

export type LisaValues = { readonly [tensor in LisaTensor]: Float32Array }

/** The tensors of a layer. A base that is quantised gives no rows: its keys of low rank begin at random. */
export function lisaStart(base: GgufSource, il: number, plan: LisaPlan): LisaValues {
  const { shape } = llama.hyperparameters(base)
  const { nHead, headDim } = shape
  const size = (tensor: LisaTensor) => lisaShapes(shape, plan)[tensor].reduce((a, b) => a * b)
  const next = random(plan.seed + il * 2 ** 20)
  const noise = (n: number, scale: number) => Float32Array.from({ length: n }, () => scale * (next() + next() + next() - 1.5) * 2)
  const floats = (name: string): Float32Array | null => {
    const info = base.tensors.get(`blk.${il}.${name}.weight`)
    return info && [F32, F16, BF16].includes(info.type) ? readFloats(base, info) : null
  }
  const [wq, wk] = [floats('attn_q'), floats('attn_k')]
  const all = range(0, headDim / 2 - 1)
  const isKnown = wq !== null && wk !== null
  const pairs = isKnown
    ? strongest(plan.rank / 2, energies({ wq, wk }, shape))
    : all.filter((p) => Math.floor((p * plan.rank) / headDim) > Math.floor(((p - 1) * plan.rank) / headDim))
  const periods = periodsOf(base)
  return {
    q: new Float32Array(size('q')),
    k: isKnown ? rowsOf(wk, pairs, shape) : noise(size('k'), 1 / Math.sqrt(shape.nEmbd)),
    align: Float32Array.from({ length: nHead * nHead }, (_, i) => (i % (nHead + 1) === 0 ? 1 : 0)),
    inner: noise(size('inner'), 1 / Math.sqrt(nHead)),
    outer: new Float32Array(size('outer')),
    period: Float32Array.from(pairs, (p) => periods[p]!),
  }
}

interface Heads {
  readonly nEmbd: number
  readonly nHead: number
  readonly nHeadKv: number
  readonly headDim: number
}

/** Per rotary pair, the sum over heads of |W_Q| · |W_K| of its rows. GGUF files of llamas rotate neighbouring rows. */
function energies({ wq, wk }: { readonly wq: Float32Array; readonly wk: Float32Array }, shape: Heads): number[] {
  const { nEmbd, nHead, nHeadKv, headDim } = shape
  const norm = (w: Float32Array, head: number, pair: number) => {
    const at = (head * headDim + 2 * pair) * nEmbd
    return Math.sqrt(w.subarray(at, at + 2 * nEmbd).reduce((sum, x) => sum + x * x, 0))
  }
  return range(0, headDim / 2 - 1).map((pair) =>
    range(0, nHead - 1).reduce((sum, h) => sum + norm(wq, h, pair) * norm(wk, Math.floor((h * nHeadKv) / nHead), pair), 0),
  )
}

/** Where the `n` largest are, ascending. */
function strongest(n: number, values: readonly number[]): number[] {
  const order = range(0, values.length - 1).toSorted((a, b) => values[b]! - values[a]!)
  return order.slice(0, n).toSorted((a, b) => a - b)
}

/** The rows of some pairs of every head. */
export function rowsOf(w: Float32Array, pairs: readonly number[], { nEmbd, headDim }: Heads): Float32Array {
  const nHead = w.length / (nEmbd * headDim)
  const rows = new Float32Array(nHead * pairs.length * 2 * nEmbd)
  for (let h = 0; h < nHead; h++) {
    for (const [i, pair] of pairs.entries()) {
      const at = (h * headDim + 2 * pair) * nEmbd
      rows.set(w.subarray(at, at + 2 * nEmbd), (h * pairs.length + i) * 2 * nEmbd)
    }
  }
  return rows
}

/** Tokens in which each pair turns by a radian. YaRN's are taken as if it only divided positions. */
export function periodsOf(base: GgufSource): number[] {
  const { shape, rope } = llama.hyperparameters(base)
  if (rope === null) throw new Error('a llama rotates')
  const factor = rope.scaling.type === 'linear' || rope.scaling.type === 'yarn' ? rope.scaling.factor : 1
  const info = base.tensors.get('rope_freqs.weight')
  const divisors = info ? readFloats(base, info) : null
  return range(0, shape.headDim / 2 - 1).map((pair) => {
    if (2 * pair >= rope.nDims) return Infinity
    return factor * rope.freqBase ** ((2 * pair) / rope.nDims) * (divisors?.[pair] ?? 1)
  })
}
