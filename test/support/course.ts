/** A sequence on its way, a prompt read in odd pieces and then token by token, with what others begin with or are compared with. */
import type { KvCache } from '../../src/kv/cache.ts'
import type { TestLayer } from './attention-layer.ts'
import { N_EMBD } from './layer-shape.ts'
import { normals } from './random.ts'
import { mappedResidentBytes } from './smaps.ts'

export const PROMPT = 301
export const T = PROMPT + 30
export const x = normals(N_EMBD * T, 21)
export const tokens = (from: number, to: number) => x.subarray(from * N_EMBD, to * N_EMBD)
export const ofTokens = (outputs: number[], from: number, to: number) => outputs.slice(from * N_EMBD, to * N_EMBD)

/** Moments of a course, in tokens, and the sizes of the pieces in which its prompt is read. */
export const EARLY = PROMPT + 6
export const LATE = T - 9
export const oddPieces = (at: number) => (at < 128 ? 64 : 67)

/** Reads a prompt in pieces of at most `size(at)` tokens. */
export async function readPrompt(
  layer: TestLayer,
  cache: KvCache,
  size: (at: number) => number,
  prompt = tokens(0, PROMPT),
): Promise<number[]> {
  const outputs: number[] = []
  const nPrompt = prompt.length / N_EMBD
  for (let at = 0; at < nPrompt;) {
    const n = Math.min(size(at), nPrompt - at, layer.attention.maxChunk(cache))
    const [o] = await layer.attend([{ cache, x: prompt.subarray(at * N_EMBD, (at + n) * N_EMBD) }], at + n === nPrompt)
    outputs.push(...o!)
    at += n
    cache.checkIntegrity()
  }
  return outputs
}

export async function decode(layer: TestLayer, cache: KvCache, from: number, to: number): Promise<number[]> {
  const outputs: number[] = []
  for (let at = from; at < to; at++) outputs.push(...(await layer.attend([{ cache, x: tokens(at, at + 1) }]))[0]!)
  return outputs
}

async function saved(cache: KvCache): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  await cache.save(async (bytes) => void pieces.push(bytes.slice()))
  return Buffer.concat(pieces)
}

/** A cache like another, out of bytes. */
export async function restored(cache: KvCache, all: Uint8Array): Promise<KvCache> {
  let at = 0
  return await cache.restore(async (into) => {
    into.set(all.subarray(at, at + into.length))
    at += into.length
    return at <= all.length
  })
}

export interface Course extends Disposable {
  /** f32[nEmbd, T] */
  readonly outputs: number[]
  readonly afterPrompt: KvCache
  /** After {@link EARLY} tokens, a fork and the bytes of the sequence itself. */
  readonly early: KvCache
  readonly bytes: Uint8Array
  /** The sequence itself, after {@link LATE} tokens; the others are computed by a fork of it. */
  readonly original: KvCache
  /** Resident bytes after some tokens: as the kernel says, and as it declares. */
  readonly resident: number
  readonly declared: number
  /** Positions in the cache when the last token comes, of each head in the first layer. */
  readonly held: readonly (readonly number[])[]
}

export async function courseOf(layer: TestLayer): Promise<Course> {
  const original = layer.newCache(4096)
  const outputs = await readPrompt(layer, original, oddPieces)
  const asPrompt = await saved(original)
  outputs.push(...(await decode(layer, original, PROMPT, PROMPT + 3)))
  // While there is no other cache: the kernel joins neighbouring stretches of memory.
  const [resident, declared] = process.platform === 'linux' ? [mappedResidentBytes(original), original.bytesHeld] : [0, 0]
  const afterPrompt = await restored(original, asPrompt)
  outputs.push(...(await decode(layer, original, PROMPT + 3, EARLY)))
  const early = original.fork()
  const bytes = await saved(original)
  outputs.push(...(await decode(layer, original, EARLY, LATE)))
  using rest = original.fork()
  outputs.push(...(await decode(layer, rest, LATE, T - 1)))
  const held = rest.layers[0]!.rows.map((map) => Array.from({ length: map.nRows }, (_, rank) => map.position(map.row(rank))))
  outputs.push(...(await decode(layer, rest, T - 1, T)))
  const dispose = () => [original, afterPrompt, early].forEach((cache) => cache[Symbol.dispose]())
  return { outputs, afterPrompt, early, bytes, original, resident, declared, held, [Symbol.dispose]: dispose }
}
