/** What methods by which layers share ask of a model before they do. */
import type { LayerShape, ModelShape } from '../../core/shape.ts'

/** Why layers that read each other's keys and values already cannot share more, or null for a model whose layers do not. */
export function refusesSharing({ layers, sharing }: ModelShape): string | null {
  const reader = layers.find(({ il, kvSource }) => kvSource !== il)
  if (reader) return `its layers share keys and values already: layer ${reader.il} reads those of layer ${reader.kvSource}`
  return sharing ? 'its layers share keys and values already (it has layer_types)' : null
}

/** Why a layer cannot take what another finds for its own heads and queries, or null. */
export function refusesLayer(layer: LayerShape, from: LayerShape): string | null {
  const [ours, theirs] = [describe(layer), describe(from)]
  const differing = ours.findIndex((text, i) => text !== theirs[i])
  if (differing === -1) return null
  return `layer ${layer.il} ${ours[differing]}, and layer ${from.il} ${theirs[differing]}`
}

function describe({ visible, nHead, nHeadKv }: LayerShape): readonly string[] {
  const sees =
    typeof visible === 'object' ? `the last ${visible.window} tokens` : visible === 'strict' ? 'those before' : 'all tokens'
  return [`sees ${sees}`, `has ${nHead} heads on ${nHeadKv}`]
}
