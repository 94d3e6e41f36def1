/** The empty answer of the share axis: every layer attends by itself. */
import type { Share } from '../method.ts'

export const shareNothing: Share = {
  record:
    (_, __, { attend }) =>
    (layer, projected) =>
      attend(layer, projected).o,
}
