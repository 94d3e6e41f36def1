import { describe, expect, it, test } from 'vitest'
import { z } from 'zod'
import { methodInfos } from '../../src/attention/catalogue.ts'
import { keepAll } from '../../src/attention/keep/all.ts'
import { type AnyMethod, AXES } from '../../src/attention/method.ts'
import { allowedText, defaultsOf, schemaOf } from '../../src/attention/method-options.ts'
import { readAll } from '../../src/attention/read/dense.ts'
import { METHODS } from '../../src/attention/registry.ts'
import { attentionFor, canonicalParts, canonicalSpec, splitSpecs } from '../../src/attention/spec.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import { layerShapes, type ModelShape } from '../../src/core/shape.ts'

const shapeOf = (headDim: number): ModelShape => {
  const any = { arch: 'test', nLayer: 2, nEmbd: 64, nHead: 4, nHeadKv: 2, headDim, nFf: 8, nVocab: 8, nCtxTrain: 4096 }
  return { ...any, layers: layerShapes(any) }
}

const told = { summary: 'For tests.', source: 'nowhere', cost: 'nothing' }
/** Methods that exist here only, with every kind of option, a conflict, and a model that one cannot serve. */
const hoard: AnyMethod = {
  ...told,
  name: 'hoard',
  axis: 'keep',
  options: z.object({ budget: z.int().min(1).max(99).default(9) }),
  conflicts: { glance: 'glance needs rows that hoard drops' },
  bind: (_, shape) => keepAll(shape),
}
const glance: AnyMethod = {
  ...told,
  name: 'glance',
  axis: 'read',
  options: z
    .object({
      k: z.number().int().min(1).default(4),
      share: z.number().min(0).max(1).default(0.5),
      from: z.enum(['first', 'last']).default('last'),
      twice: z.boolean().default(false),
      size: z.union([z.int().min(1), z.string().regex(/^\d+%$/, 'a share is written 20%')]).default('20%'),
      most: z.int().optional(),
    })
    .refine(({ k, most }) => most === undefined || k <= most, { path: ['most'], message: 'less than k' }),
  refuses: ({ headDim }) => (headDim % 32 === 0 ? null : `head dimension ${headDim} is not a multiple of 32`),
  bind: () => readAll,
}
const scan: AnyMethod = { ...told, name: 'scan', axis: 'read', options: z.object({}), bind: () => readAll }
const OURS = [scan, glance, hoard]

describe('a setting in its shortest spelling', () => {
  test.each<[AttentionSetting, string]>([
    ['dense', 'dense'],
    [' dense ', 'dense'],
    [[], 'dense'],
    [{ method: 'dense' }, 'dense'],
    ['dense+hoard', 'hoard'],
    ['hoard', 'hoard'],
    ['hoard:budget=9', 'hoard'],
    ['hoard:budget=10', 'hoard:budget=10'],
    [' hoard : budget = 10 ', 'hoard:budget=10'],
    [{ method: 'hoard', budget: 10 }, 'hoard:budget=10'],
    [['hoard:budget=10'], 'hoard:budget=10'],
    ['glance:k=2k', 'glance:k=2048'],
    ['glance:twice=on,share=0.25,from=first,k=4', 'glance:share=0.25,from=first,twice=true'],
    ['glance:twice=off,share=1e-7', 'glance:share=1e-7'],
    ['glance:size=20', 'glance:size=20'],
    ['glance:most=5,k=5', 'glance:k=5,most=5'],
    ['glance:size=30%', 'glance:size=30%'],
    ['scan+hoard', 'hoard+scan'],
    [['scan', { method: 'hoard', budget: 1 }], 'hoard:budget=1+scan'],
  ])('%j is %s', (setting, expected) => {
    expect(canonicalSpec(setting, OURS)).toBe(expected)
    expect(canonicalSpec(expected, OURS)).toBe(expected)
    expect(canonicalSpec(canonicalParts(setting, OURS), OURS)).toBe(expected)
  })

  test('as objects, with the options that are not the defaults', () => {
    expect(canonicalParts('scan+hoard:budget=3', OURS)).toEqual([{ method: 'hoard', budget: 3 }, { method: 'scan' }])
    expect(canonicalParts('dense')).toEqual([])
  })

  test.each([
    ['dense', ['dense']],
    ['dense,hip', ['dense', 'hip']],
    ['dense,streaming:sink=4,window=64,hip+x:a=1,b=2', ['dense', 'streaming:sink=4,window=64', 'hip+x:a=1,b=2']],
    ['a:b=1 , c = 2 , d', ['a:b=1 , c = 2', 'd']],
    ['a,,b', ['a', '', 'b']],
  ])('a list %j has the settings %j', (text, expected) => {
    expect(splitSpecs(text)).toEqual(expected)
  })
})

describe('a setting is refused', () => {
  const KNOWN = 'known: dense, scan, glance, hoard'
  test.each<[unknown, string]>([
    ['hord', `unknown method 'hord'; ${KNOWN}`],
    ['', `unknown method ''; ${KNOWN}`],
    ['hoard+', `unknown method ''; ${KNOWN}`],
    ['Hoard', "unknown method 'Hoard'"],
    ['constructor', "unknown method 'constructor'"],
    ['__proto__', "unknown method '__proto__'"],
    [{ method: 'toString' }, "unknown method 'toString'"],
    ['hoard:constructor=1', "hoard has no option 'constructor'; it has budget"],
    ['hoard:__proto__=1', "hoard has no option '__proto__'; it has budget"],
    [JSON.parse('{"method":"hoard","__proto__":{"budget":3}}'), "hoard has no option '__proto__'"],
    [{ method: 'hoard', size: 3 }, "hoard has no option 'size'; it has budget"],
    ['scan:k=3', "scan has no option 'k'; it has none"],
    ['dense:k=3', "dense has no options, so none named 'k'"],
    ['hoard:budget=0', 'hoard: budget is 0, and should be a whole number from 1 to 99'],
    ['hoard:budget=100', 'hoard: budget is 100, and should be a whole number from 1 to 99'],
    ['hoard:budget=1.5', 'hoard: budget is 1.5, and should be a whole number from 1 to 99'],
    ['hoard:budget=many', "hoard: budget is 'many', and should be a whole number from 1 to 99"],
    [{ method: 'hoard', budget: '10' }, "hoard: budget is '10', and should be"],
    [{ method: 'hoard', budget: null }, 'hoard: budget is null, and should be'],
    [{ method: 'hoard', budget: Infinity }, 'hoard: budget is Infinity, and should be'],
    [{ method: 'hoard', budget: [1] }, 'hoard: budget is an array, and should be'],
    ['glance:k=0', 'glance: k is 0, and should be a whole number, 1 or more'],
    ['glance:share=2', 'glance: share is 2, and should be a number from 0 to 1'],
    ['glance:from=middle', "glance: from is 'middle', and should be first or last"],
    ['glance:twice=perhaps', "glance: twice is 'perhaps', and should be true or false"],
    ['glance:size=20x', "glance: size is '20x', and should be a whole number, 1 or more, or a text (a share is written 20%)"],
    ['glance:most=3', 'glance: most is 3: less than k'],
    ['glance:k=5,most=4,size=5%', 'glance: most is 4: less than k'],
    ['hoard:', "nothing stands behind the colon of 'hoard:'"],
    ['hoard:budget', "'budget' in 'hoard:budget' should be option=value"],
    ['hoard:budget=', "'budget=' in 'hoard:budget=' should be option=value"],
    ['hoard:=3', "'=3' in 'hoard:=3' should be option=value"],
    ['hoard:budget=1=2', 'should be option=value'],
    ['hoard:budget=1,', "'' in 'hoard:budget=1,' should be option=value"],
    ['hoard:budget=1:budget=2', 'should be option=value'],
    ['hoard:budget=1,budget=2', "option 'budget' stands twice"],
    ['hoard+hoard', 'hoard and hoard answer the same question (keep); a setting takes one of them'],
    ['glance+scan', 'glance and scan answer the same question (read)'],
    [['scan', { method: 'glance' }], 'scan and glance answer the same question (read)'],
    ['glance+hoard', 'glance and hoard cannot work together: glance needs rows that hoard drops'],
    ['hoard+glance', 'hoard and glance cannot work together: glance needs rows that hoard drops'],
    [5, 'a setting is a text'],
    [null, 'a setting is a text'],
    [true, 'a setting is a text'],
    [{}, "a setting is a text, an object with 'method', or an array of these"],
    [{ method: 5 }, 'a setting is a text'],
    [[['hoard']], 'a setting is a text'],
    [[null], 'a setting is a text'],
    ['x'.repeat(10_000_000), 'a setting of 10000000 characters; 4096 are the most'],
    ['hoard:budget='.padEnd(4000, '9'), 'hoard: budget is Infinity, and should be'],
    ['+'.repeat(4000), 'a setting of 4001 parts; there is at most one for each of share, keep, read'],
    [Array(1_000_000).fill('dense'), 'a setting of 1000000 parts'],
    [{ method: 'x'.repeat(1_000_000) }, "unknown method 'xxx"],
  ])('%#', (setting, message) => {
    let thrown: Error | undefined
    try {
      canonicalSpec(setting as AttentionSetting, OURS)
    } catch (error) {
      thrown = error as Error
    }
    expect(thrown).toMatchObject({ code: 'attention_invalid', status: 400, fields: { param: 'attention' } })
    expect(thrown!.message).toContain(message)
    expect(thrown!.message.length).toBeLessThan(300)
  })

  test('by a model that the method cannot serve', () => {
    expect(() => attentionFor('glance', shapeOf(16), OURS)).toThrow(
      'attention: glance cannot serve this model: head dimension 16 is not a multiple of 32',
    )
    expect(attentionFor('glance:k=8', shapeOf(32), OURS).spec).toBe('glance:k=8')
  })
})

describe.each(METHODS.map((method) => [method.name, method] as const))('%s', (name, method) => {
  const options = Object.entries(schemaOf(method).properties)

  it('says what it is, and of each option its default, its range and its unit', () => {
    for (const text of [method.summary, method.source, method.cost]) expect(text).toMatch(/\S/)
    for (const [option, schema] of options) {
      expect(schema.description, option).toMatch(Object.hasOwn(defaultsOf(method), option) ? /\S/ : /default/)
      expect(allowedText(schema), option).not.toBe('a value')
    }
  })

  it('has a name and options that settings can be written with, and defaults that need not be', () => {
    expect(name).toMatch(/^[a-z][a-z0-9_]*$/)
    for (const [option] of options) expect(option).toMatch(/^[a-z][a-z0-9_]*$/)
    expect(canonicalSpec(name)).toBe(name)
    const defaults = Object.entries(defaultsOf(method)).map(([option, value]) => `${option}=${String(value)}`)
    if (defaults.length > 0) expect(canonicalSpec(`${name}:${defaults.join(',')}`)).toBe(name)
  })

  it('refuses what is out of range, and says the range', () => {
    for (const [option, schema] of options) {
      const wrong: unknown[] = [{}, ...(schema.minimum === undefined ? [] : [schema.minimum - 1])]
      for (const value of wrong) {
        expect(() => canonicalSpec({ method: name, [option]: value })).toThrow(`${name}: ${option} is`)
      }
    }
  })
})

test('the registry has no name twice, and conflicts name methods that exist', () => {
  const names = METHODS.map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  for (const info of methodInfos()) {
    expect(AXES).toContain(info.axis)
    for (const other of [...info.composes_with, ...Object.keys(info.conflicts)]) expect(names).toContain(other)
  }
})

test('what goes together, and what does not', () => {
  const infos = Object.fromEntries(methodInfos(OURS).map((info) => [info.name, info]))
  expect(Object.keys(infos)).toEqual(['hoard', 'scan', 'glance'])
  expect(infos['hoard']).toMatchObject({ composes_with: ['scan'], conflicts: { glance: 'glance needs rows that hoard drops' } })
  expect(infos['glance']).toMatchObject({ composes_with: [], conflicts: { hoard: 'glance needs rows that hoard drops' } })
  expect(infos['scan']).toMatchObject({ composes_with: ['hoard'], conflicts: {} })
})

test('streaming in every spelling', () => {
  expect(canonicalSpec('streaming:sink=4,window=1k')).toBe('streaming:window=1024')
  expect(canonicalSpec({ method: 'streaming', sink: 0, window: 2000 })).toBe('streaming:sink=0')
  expect(() => canonicalSpec('streaming:window=0')).toThrow(
    'streaming: window is 0, and should be a whole number from 1 to 1048576',
  )
})
