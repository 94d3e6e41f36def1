import { describe, expect, it } from 'vitest'
import { samplingSchema } from '../../src/core/sampling.ts'
import { isAllowed, SAMPLING, samplingFrom } from '../../web/src/sampling.ts'

describe('the sampling form', () => {
  const shared = SAMPLING.filter(({ name }) => name in samplingSchema.shape)

  it.each(shared.map((spec) => [spec.name, spec] as const))('offers for %s only what the server takes', (name, spec) => {
    const field = samplingSchema.shape[name as keyof typeof samplingSchema.shape]
    const offered = [spec.min, spec.max, 0.5, 1].filter((value) => isAllowed(spec, value))
    expect(offered.length).toBeGreaterThanOrEqual(2)
    expect(offered.filter((value) => !field.safeParse(value).success)).toEqual([])
  })

  it.each([
    ['what is allowed', { temperature: 0, top_k: 5 }, { temperature: 0, top_k: 5 }],
    ['nothing of what is not', { temperature: -1, top_k: 1.5, min_p: '0.1', top_p: 2, other: 1 }, {}],
    ['nothing from something else', 'temperature', {}],
    ['nothing from nothing', null, {}],
  ])('takes %s from the storage', (_, stored, expected) => {
    expect(samplingFrom(stored)).toEqual(expected)
  })
})
