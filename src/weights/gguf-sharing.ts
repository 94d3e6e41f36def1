/** The metadata by which a llama's GGUF file says that its layers read each other's keys and values. */
import { type LayerSharing, writeLayerTypes } from '../core/layer-types.ts'
import type { GgufValue } from './gguf-values.ts'

export function sharingValues({ reads, forceNodiag, forwardPasses, backwardPasses }: LayerSharing): [string, GgufValue][] {
  return [
    ['llama.attention.layer_types', { kind: 'str', value: writeLayerTypes(reads) }],
    ['llama.attention.force_nodiag', { kind: 'bool', value: forceNodiag }],
    ['llama.attention.forward_passes', { kind: 'u32', value: forwardPasses }],
    ['llama.attention.backward_passes', { kind: 'u32', value: backwardPasses }],
  ]
}
