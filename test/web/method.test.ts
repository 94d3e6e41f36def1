import { describe, expect, it } from 'vitest'
import { methodInfos } from '../../src/attention/catalogue.ts'
import type { MethodSetting } from '../../src/core/request.ts'
import { canonicalSpec } from '../../src/attention/spec.ts'
import {
  choose,
  isAllowedOption,
  type MethodInfo,
  obstacle,
  optionSpec,
  settingFrom,
  textValue,
  withOption,
} from '../../web/src/method.ts'

const method = (name: string, axis: string, properties: MethodInfo['options']['properties'] = {}, conflicts = {}): MethodInfo => {
  return { name, axis, summary: '', source: '', cost: '', options: { properties }, conflicts }
}
/** What the server would say; options that do not go together are another matter than one that is out of range. */
function faultOf(setting: MethodSetting): string {
  try {
    return canonicalSpec(setting)
  } catch (error) {
    return (error as Error).message
  }
}
const ALL = [
  method('sink', 'keep', { n: { type: 'integer', minimum: 1, maximum: 9 }, from: { enum: ['first', 'last'] } }),
  method('heavy', 'keep'),
  method('peek', 'read', { share: { type: 'number' }, twice: { type: 'boolean' }, size: {} }, { heavy: 'they quarrel' }),
]

describe('the form of attention', () => {
  it.each(methodInfos().map((info) => [info.name, info] as const))(
    'asks for every option of %s, with its default',
    (name, info) => {
      for (const [option, schema] of Object.entries(info.options.properties)) {
        if (Object.hasOwn(info.defaults, option))
          expect(isAllowedOption(option, schema, info.defaults[option]), option).toBe(true)
        const spec = optionSpec(option, schema)
        const edges: unknown[] =
          spec.kind === 'number' ? [spec.spec.min, spec.spec.max] : spec.kind === 'choice' ? [...spec.values] : []
        for (const value of edges) expect(faultOf({ method: name, [option]: value })).not.toContain('should be')
      }
    },
  )

  it('takes one method of an axis, and none', () => {
    const one = choose([], { axis: 'keep', method: { method: 'sink', n: 3 } }, ALL)
    const two = choose(one, { axis: 'read', method: { method: 'peek' } }, ALL)
    expect(two).toEqual([{ method: 'sink', n: 3 }, { method: 'peek' }])
    expect(choose(two, { axis: 'keep', method: { method: 'heavy' } }, ALL)).toEqual([{ method: 'peek' }, { method: 'heavy' }])
    expect(choose(two, { axis: 'keep', method: null }, ALL)).toEqual([{ method: 'peek' }])
  })

  it('sets options and leaves them to the server again', () => {
    expect(withOption({ method: 'sink' }, 'n', 0)).toEqual({ method: 'sink', n: 0 })
    expect(withOption({ method: 'sink', n: 2 }, 'n', undefined)).toEqual({ method: 'sink' })
  })

  it('knows what cannot stand beside what', () => {
    const [sink, heavy, peek] = ALL
    expect(obstacle([{ method: 'heavy' }], peek!, ALL)).toBe('not with heavy: they quarrel')
    expect(obstacle([{ method: 'peek' }], heavy!, ALL)).toBe('not with peek: they quarrel')
    expect(obstacle([{ method: 'heavy' }], sink!, ALL)).toBeNull()
    expect(obstacle([{ method: 'peek' }], sink!, ALL)).toBeNull()
  })

  it.each([
    ['', undefined],
    [' 20% ', '20%'],
    ['512', 512],
    ['0.5', 0.5],
    ['1e9x', '1e9x'],
  ])('reads %j as %j', (typed, expected) => {
    expect(textValue(typed)).toBe(expected)
  })

  it.each<[unknown, unknown]>([
    [null, null],
    ['sink', null],
    [{ method: 'sink' }, null],
    [[], []],
    [[{ method: 'gone' }], null],
    [[{ method: 'gone' }, { method: 'heavy' }], [{ method: 'heavy' }]],
    [[{ method: 'sink', n: 3, from: 'last' }], [{ method: 'sink', n: 3, from: 'last' }]],
    [[{ method: 'sink', n: 10, from: 'middle', other: 1 }], [{ method: 'sink' }]],
    [[{ method: 'peek', share: 0.5, twice: true, size: '20%' }], [{ method: 'peek', share: 0.5, twice: true, size: '20%' }]],
    [[{ method: 'peek', share: '0.5', twice: 'yes', size: {} }], [{ method: 'peek' }]],
    [[{ method: 'sink' }, { method: 'heavy' }, 5, null], [{ method: 'sink' }]],
    [[{ method: 'constructor' }, { method: '__proto__' }], null],
  ])('takes from the storage %j as %j', (stored, expected) => {
    expect(settingFrom(stored, ALL)).toEqual(expected)
  })
})
