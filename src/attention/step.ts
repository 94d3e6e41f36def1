/**
 * One forward pass as it is recorded: attention of a whole step, for which the linear layers see the tokens of all sequences side
 * by side and attention goes sequence by sequence. What all chunks share is computed once.
 */
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32, I32 } from '../ggml/types.ts'
import type { KvCache } from '../kv/cache.ts'
import { linear } from '../nn/linear.ts'
import type { Attention, ChunkFacts } from './attention.ts'
import { Chunk } from './chunk.ts'
import { attendIn, type Pass } from './iterations.ts'
import type { AttentionLayer } from './method.ts'
import { columnsOf, projections } from './projected.ts'

/** What a step computes of one sequence. */
export interface StepChunk {
  readonly cache: KvCache
  readonly attention: Attention
  readonly nTokens: number
}

/** Normed residual f32[nEmbd, nTokens] → what is added to the residual, of the same shape; null if nothing is. */
export type Attend = (layer: AttentionLayer, x: Tensor, pass: Pass | null) => Tensor | null

/** What a model needs to record its forward pass. */
export interface Step {
  readonly g: Graph
  readonly nTokens: number
  /** i32[nTokens] */
  readonly positions: Tensor
  readonly attend: Attend
  /** Times that layers which depend on themselves are run: as often as the chunk that needs it most. */
  readonly nPasses: number
}

export function factsOf(chunks: readonly StepChunk[]): ChunkFacts[] {
  return chunks.map(({ attention, cache, nTokens }) => attention.facts(cache, nTokens))
}

/** Steps with equal keys are computed by the same graph: addresses and facts are all that it depends on. */
export function stepKey(chunks: readonly StepChunk[], facts: readonly ChunkFacts[]): string {
  return JSON.stringify(chunks.map(({ cache, attention }, i) => [cache.id, attention.spec, facts[i]]))
}

/** Begins to record a step; `cacheOf` gives a chunk's cache in the step that is being computed. */
export function buildStep(
  g: Graph,
  { chunks: asked, facts }: { readonly chunks: readonly StepChunk[]; readonly facts: readonly ChunkFacts[] },
  cacheOf: (chunk: number) => KvCache,
): Step {
  const firsts: number[] = []
  let nTokens = 0
  for (const one of asked) {
    firsts.push(nTokens)
    nTokens += one.nTokens
  }
  const positions = g.input(I32, [nTokens], (data) => {
    for (const [i, one] of asked.entries()) {
      const { nTokens: before } = cacheOf(i)
      for (let j = 0; j < one.nTokens; j++) data[firsts[i]! + j] = before + j
    }
  })
  const chunks = asked.map(({ cache }, index) => {
    const place = { ...facts[index]!, index, first: firsts[index]!, positions, isAlone: asked.length === 1 }
    return new Chunk(g, place, cache.layers, () => cacheOf(index))
  })
  const recorded = chunks.map((chunk, i) => {
    const { attention } = asked[i]!
    return { chunk, recorded: attention.record(chunk, facts[i]!), nPasses: attention.nPasses(chunk.nTokens) }
  })
  const attend: Attend = (layer, x, pass) => {
    const all = projections(g, layer, { x, positions })
    const attendAll = () => recorded.map((of) => attendIn(pass, of, { layer, projected: columnsOf(of.chunk, all) }))
    const outputs = g.within({ part: 'attention' }, attendAll)
    return g.within({ part: 'attention.output' }, () => outputOf(g, layer, { outputs, chunks }))
  }
  return { g, nTokens, positions, attend, nPasses: Math.max(...recorded.map(({ nPasses }) => nPasses)) }
}

interface Outputs {
  /** f32[dV · H, n] of each chunk. */
  readonly outputs: readonly (Tensor | null)[]
  readonly chunks: readonly Chunk[]
}

/** What is added to the residual; nothing is added to that of a chunk without output. */
function outputOf(g: Graph, layer: AttentionLayer, { outputs, chunks }: Outputs): Tensor | null {
  const some = outputs.filter((o) => o !== null)
  if (some.length === 0) return null
  const y = linear(g, layer.output, join(g, some))
  if (some.length === outputs.length) return y
  let first = 0
  const columns = outputs.map((o, i) => {
    const n = chunks[i]!.nTokens
    if (o === null) return g.input(F32, [y.ne[0], n], (data) => data.fill(0))
    first += n
    return g.view(y, [y.ne[0], n, 1, 1], [y.nb[1], y.nb[2], y.nb[3]], (first - n) * y.nb[1])
  })
  return join(g, columns)
}

/** Side by side. */
function join(g: Graph, parts: readonly Tensor[]): Tensor {
  return parts.reduce((all, part) => g.concat(all, part, 1))
}
