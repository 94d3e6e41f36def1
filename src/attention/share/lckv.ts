/**
 * LCKV: a group of layers attends to the keys and values of its last layer (the target), so only that layer's are computed
 * and kept. The target of a token is not ready while its lower layers run, so there a token does not see itself. Models must be
 * trained so; a few ordinary layers stay at the bottom and at the top.
 *
 * Wu and Tu, "Layer-Condensed KV Cache for Efficient Inference of Large Language Models" (arXiv 2405.10637), sections 2 and 3.
 * Which layer reads which is the model's (`layer_types`, core/layer-types.ts). A token is decoded in one pass: condensed layers
 * see the target's keys 0 … t-1, all there already. A prompt runs the group `iterations` times (the model's m + b), each time
 * with the keys and values of the time before, at first zeros; token i is exact from iteration i + 1 on. The first token's
 * condensed layers see nothing, and add nothing.
 *
 * Where we differ: n tokens take min(n, iterations) passes, with which short prompts are exact; the authors read those token by
 * token. A prompt that comes in pieces iterates each piece, the keys before it being final. Decoding sees exactly the keys of
 * earlier tokens: in the authors' code the newest of them gives way to a zero key.
 *
 * Cost per token and layer: bytes read and FLOPs as dense. Memory: only layers that are read keep keys and values, for two
 * ordinary layers and one group 3 of all. Prompts take `iterations` times as long in the group.
 */
import { z } from 'zod'
import type { LayerSharing } from '../core/layer-types.ts'
import type { ModelShape } from '../core/shape.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F32 } from '../ggml/types.ts'
import type { Cycle, OwnLayer, Share, ShareMethod, Step, StepPart, WrittenLayer } from './method.ts'

const options = z.object({
  iterations: z
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe("times that a prompt's condensed layers are run (default: what the model was trained with)"),
})

export const lckv: ShareMethod<typeof options> = {
  name: 'lckv',
  axis: 'share',
  summary: 'For models trained so: many layers read the keys and values of one; only that one keeps any.',
  source: 'LCKV, arXiv 2405.10637',
  cost: 'bytes read as dense, kept only in layers that are read; prompts take m + b passes over the condensed layers',
  needs: 'a model whose layers share keys and values (layer_types)',
  options,
  exactFor: (nTokens) => ({ iterations: Math.min(nTokens, 1024) }),
  tightFor: () => ({ iterations: 2 }),
  wantsSameRows: true,
  isOfModel: ({ sharing }) => sharing !== undefined,
  refuses: ({ sharing }) => (sharing ? null : 'each of its layers has keys and values of its own (it has no layer_types)'),
  bind: ({ iterations }, shape) => share(shape, iterations ?? passesOf(shape.sharing!)),
}

const passesOf = ({ forwardPasses, backwardPasses }: LayerSharing): number => forwardPasses + backwardPasses

/** Groups of layers that depend on themselves: from a condensed layer to the last layer that one of them reads. */
export function groupsOf(reads: readonly number[]): Pick<Cycle, 'first' | 'last'>[] {
  const groups: { first: number; last: number }[] = []
  for (let first = 0; first < reads.length; first++) {
    if (reads[first]! <= first) continue
    let last = reads[first]!
    for (let il = first; il <= last; il++) last = Math.max(last, reads[il]!)
    groups.push({ first, last })
    first = last
  }
  return groups
}

function share({ sharing }: ModelShape, iterations: number): Share {
  const { reads, forceNodiag } = sharing!
  const groups = groupsOf(reads)
  const groupOf = (il: number) => groups.find(({ first, last }) => first <= il && il <= last)
  const passes = (nTokens: number) => Math.min(nTokens, iterations)
  /** Layers of a group whose keys and values are read before they are computed. */
  const targets = groups.map(({ first, last }) => reads.slice(first, last + 1).filter((target, i) => target > first + i))

  return {
    reads: (il) => reads[il]!,
    stores: (il, own) => (reads[il] === il ? own : Object.fromEntries(Object.entries(own).filter(([, s]) => s.ofReader))),
    cycles: (nTokens) => groups.map((group) => ({ ...group, passes: passes(nTokens) })),
    graphKey: (cache) => (cache.nTokens === 0 ? 'first' : ''),
    /** The last layer of a group reads in the last pass only. */
    keyShare: (il, _, nTokens) => (groupOf(il) && il !== groupOf(il)!.last ? passes(nTokens) : 1),

    start(step, part, own) {
      const strict = own.strict()
      const nothing = firstToken(step, part)
      const zeros = zerosFor(step, part, own)
      const runs = new Map<number, number>()
      return (layer, projected) => {
        const { il, rope, ropeFactors } = layer
        const group = groupOf(il)
        // The step may run the group more often than this part needs: then the part joins in late.
        const run = (runs.get(il) ?? 0) + 1
        runs.set(il, run)
        const nRuns = step.cycles?.find(({ first }) => first === group?.first)?.passes ?? 1
        const pass = run - (nRuns - (group ? passes(part.nTokens) : 1))
        if (pass < 1) return null
        const isLast = run === nRuns
        if (il === group?.first && pass === 1 && !isLast)
          for (const target of targets[groups.indexOf(group)]!) zeros({ il: target, rope, ropeFactors })

        const isCondensed = reads[il]! > il
        const { kept, read, attend, store } = isCondensed || forceNodiag ? strict : own
        if (reads[il] === il && isLast) return nothing(attend(layer, projected).o, isCondensed)
        if (reads[il] === il) store(layer, projected)
        if (!isLast && il === group?.last) return null // keys and values are all that was wanted
        return nothing(read(kept(layer, projected), projected).o, isCondensed)
      }
    },
  }

  /** Outputs f32[d · H, n] where a token does not see itself: that of the first token of all is zero. */
  function firstToken({ g }: Step, { cache, nTokens }: StepPart): (o: Tensor, isCondensed: boolean) => Tensor {
    if (cache.nTokens > 0) return (o) => o
    const isThere = g.input(F32, [1, nTokens], (data) => data.fill(1).fill(0, 0, 1))
    return (o, isCondensed) => (isCondensed || forceNodiag ? g.mul(o, isThere) : o)
  }
}

/** Writes zeros as the keys and values of a part's tokens in a layer. */
function zerosFor({ g, shape }: Step, { nTokens }: StepPart, own: OwnLayer): (layer: WrittenLayer) => void {
  const { headDim, nHeadKv } = shape
  let made: Tensor | undefined
  return (layer) => {
    made ??= g.input(F32, [headDim, nHeadKv, nTokens], (data) => data.fill(0))
    own.write(layer, { k: made, v: made })
  }
}
