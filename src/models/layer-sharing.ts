/** What a model's file says of layers that read each other's keys and values, in the words of LCKV's config. */
import { parseLayerTypes, SHARING_DEFAULTS } from '../core/layer-types.ts'
import type { ModelShape } from '../core/shape.ts'
import type { Fields } from './hyperparameters.ts'

const MOST_PASSES = 1024

/**
 * `layer_types`, `force_nodiag`, `forward_passes` and `backward_passes` behind `prefix`; {} where there are no `layer_types`.
 * Errors: `model_unsupported` for types that make no sense or are not supported.
 */
export function sharingOf(f: Fields, prefix: string, nLayer: number): Pick<ModelShape, 'sharing'> {
  const types = f.get(`${prefix}layer_types`)
  if (types === undefined) return {}
  const text = Array.isArray(types) ? types.join('_') : String(types)
  const reads = parseLayerTypes(text, nLayer)
  if (typeof reads === 'string') throw f.unsupported(`${prefix}layer_types: ${reads}`)
  return {
    sharing: {
      reads,
      forceNodiag: f.flag(`${prefix}force_nodiag`),
      forwardPasses: f.count(`${prefix}forward_passes`, MOST_PASSES, SHARING_DEFAULTS.forwardPasses),
      backwardPasses: f.count(`${prefix}backward_passes`, MOST_PASSES, SHARING_DEFAULTS.backwardPasses),
    },
  }
}
