/**
 * LCKV: a group of layers attends to the keys and values of its last layer (the target), so only that layer's are computed
 * and kept. The target of a token is not ready while its lower layers run, so there a token does not see itself. Models must be
 * trained so; a few ordinary layers stay at the bottom and at the top.
 *
 * Wu and Tu, "Layer-Condensed KV Cache for Efficient Inference of Large Language Models" (arXiv 2405.10637), sections 2 and 3.
 * Which layer reads which is the model's (`layer_types`, core/layer-types.ts), so this is how such a model attends in every
 * setting; here one can say only how long. A token is decoded in one pass: condensed layers see the target's keys 0 … t-1, all
 * there already. A prompt runs the group `iterations` times (the model's m + b), each time with the keys and values of the time
 * before, at first zeros; token i is exact from iteration i + 1 on (attention/iterations.ts). The first token's condensed layers
 * see nothing, and add nothing.
 *
 * Where we differ: n tokens take min(n, iterations) passes, with which short prompts are exact; the authors read those token by
 * token. A prompt that comes in pieces iterates each piece, the keys before it being final. Decoding sees exactly the keys of
 * earlier tokens: in the authors' code the newest of them gives way to a zero key.
 *
 * Cost per token and layer: bytes read and FLOPs as dense. Memory: only layers that are read keep keys and values, for two
 * ordinary layers and one group 3 of all. Prompts take `iterations` times as long in the group.
 */
import { z } from 'zod'
import type { ShareMethod } from '../method.ts'
import { shareNothing } from './nothing.ts'

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
  wantsSameRows: true,
  refuses: ({ sharing }) => (sharing ? null : 'each of its layers has keys and values of its own (it has no layer_types)'),
  bind: ({ iterations }) => ({ ...shareNothing, ...(iterations !== undefined && { iterations }) }),
}
