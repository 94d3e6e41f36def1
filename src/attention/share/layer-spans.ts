/** Layers as people write them: `10-20`, several `10-20/24`, counted from 0; `none`, or `auto` for what a method chooses itself. */
import { z } from 'zod'

const SPANS = /^(auto|none|\d{1,4}(-\d{1,4})?(\/\d{1,4}(-\d{1,4})?)*)$/

/** The option; `auto` by default. */
export const spans = z
  .union([z.int().min(0).max(1023), z.string().regex(SPANS, 'spans of layers are written 10-20, several 10-20/24')])
  .default('auto')

/** The layers of `text`, ascending; `auto` are the `auto` ones. A span may lie outside of a model. */
export function layersOf(text: string | number, auto: readonly number[]): number[] {
  if (text === 'auto') return [...auto]
  if (text === 'none') return []
  const layers = String(text)
    .split('/')
    .flatMap((span) => {
      const [first, last = first] = span.split('-').map(Number)
      return range(first!, last!)
    })
  return [...new Set(layers)].sort((a, b) => a - b)
}

/** first … last, both included. */
export function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i)
}

/** Why a model of `nLayer` layers has no such layers, or null. */
export function outside(layers: readonly number[], nLayer: number): string | null {
  const beyond = layers.find((il) => il >= nLayer)
  return beyond === undefined ? null : `it has no layer ${beyond}: its ${nLayer} layers are 0 to ${nLayer - 1}`
}
