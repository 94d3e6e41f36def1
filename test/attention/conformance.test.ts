/** Every registered method, and every pair that may work together. That a method is what it says is tested beside its oracle. */
import { describe, expect, it } from 'vitest'
import { METHODS } from '../../src/attention/registry.ts'
import { attentionFor } from '../../src/attention/spec.ts'
import { layerShapes } from '../../src/core/shape.ts'
import { conforms, nLayersFor, settingOf, settingsOf, SHAPES } from '../support/conformance.ts'

const SETTINGS = settingsOf(METHODS)

conforms(SETTINGS, METHODS)

describe('settings', () => {
  it('are written in one way, which means the same', () => {
    for (const methods of SETTINGS) {
      const nLayer = nLayersFor(methods)
      const any = { arch: 'x', nLayer, nEmbd: 1, nFf: 1, nVocab: 1, nCtxTrain: 1, ...SHAPES[0]! }
      const shape = { ...any, layers: layerShapes(any) }
      const { spec } = attentionFor(settingOf(methods, 'tightFor'), shape)
      expect(attentionFor(spec, shape).spec).toBe(spec)
    }
  })
})
