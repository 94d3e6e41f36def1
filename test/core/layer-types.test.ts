import { describe, expect, it } from 'vitest'
import { parseLayerTypes } from '../../src/core/layer-types.ts'

describe('layer types', () => {
  it.each([
    ['0_3_3_3_4', [0, 3, 3, 3, 4]],
    ['0_3x3_4', [0, 3, 3, 3, 4]],
    ['0_3×3_4', [0, 3, 3, 3, 4]],
  ])('%s', (text, reads) => expect(parseLayerTypes(text, 5)).toEqual(reads))

  it.each([
    ['0_1_2', 'it has 3 entries for 5 layers'],
    ['0_1_2_3_9', 'layer 4 reads layer 9 of 5'],
    ['0_3_3_4_4', 'layer 1 reads layer 3, which reads layer 4: a layer that is read must read itself'],
    ['0_1s_2_3_4', "'1s' has a sliding window, which is not supported"],
    ['0_x_2_3_4', "'x' is no layer"],
    ['0x9999_1x9999', 'it has 1025 entries for 5 layers'],
    ['', "'' is no layer"],
  ])('%s is refused', (text, reason) => expect(parseLayerTypes(text, 5)).toBe(reason))
})

/** Methods of other axes read the condensed layer as their own. */
