/** Why a model cannot be shared as a method would. */
import { KvasirError } from '../../core/errors.ts'
import type { LayerShape, ModelShape } from '../../core/shape.ts'

/** Why layers that read each other's keys and values already cannot share more, or null for a model whose layers do not. */
export function refusesSharing({ layers, sharing }: ModelShape): string | null {
  const reader = layers.find(({ il, kvSource }) => kvSource !== il)
  if (reader) return `its layers share keys and values already: layer ${reader.il} reads those of layer ${reader.kvSource}`
  return sharing ? 'its layers share keys and values already (it has layer_types)' : null
}

/** Why a layer cannot take what another finds for its own heads and queries, or null. */
export function refusesLayer(layer: LayerShape, from: LayerShape): string | null {
  const [ours, theirs] = [described(layer), described(from)]
  const at = ours.findIndex((text, i) => text !== theirs[i])
  return at === -1 ? null : `layer ${layer.il} ${ours[at]}, and layer ${from.il} ${theirs[at]}`
}

function described({ visible, nHead, nHeadKv }: LayerShape): readonly string[] {
  const seen =
    typeof visible === 'object' ? `the last ${visible.window} tokens` : visible === 'strict' ? 'those before' : 'all tokens'
  return [`sees ${seen}`, `has ${nHead} heads on ${nHeadKv}`]
}

/** Why `make` fails, if it is something that a user can mend; null if it does not. */
export function refusalOf(make: () => unknown): string | null {
  try {
    make()
    return null
  } catch (error) {
    if (error instanceof KvasirError) return error.message.replace(/^attention: /, '')
    throw error
  }
}

/** A setting that cannot be, whatever method it names. */
export function attentionInvalid(reason: string): KvasirError {
  return new KvasirError('attention_invalid', { reason, param: 'attention' })
}
