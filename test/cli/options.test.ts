import { afterEach, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { parseCount } from '../../src/core/sizes.ts'
import { cittyArgs, envName, normalise, spelling, toNumber, valuesOf } from '../../src/cli/options.ts'
import { parseArgs } from 'citty'

const OPTIONS = {
  'ctx-size': { short: 'c', hint: 'N', about: 'context', convert: parseCount, schema: z.int().min(0).default(0) },
  'cache-type-k': { short: 'ctk', hint: 'TYPE', about: 'keys', schema: z.enum(['f16', 'q8_0']).default('f16') },
  'n-predict': { short: 'n', hint: 'N', about: 'tokens', convert: parseCount, schema: z.int().min(-1).default(128) },
  temp: { hint: 'N', about: 'temperature', convert: toNumber, schema: z.number().min(0).max(100).optional() },
  prompt: { short: 'p', hint: 'TEXT', about: 'prompt', schema: z.string().optional() },
  stop: { hint: 'TEXT,…', about: 'ends', schema: z.string().optional() },
  json: { about: 'JSON', schema: z.boolean().default(false) },
  bos: { about: 'no BOS', schema: z.boolean().default(true) },
}
const DEFAULTS = { ctxSize: 0, cacheTypeK: 'f16', nPredict: 128, json: false, bos: true }

/** What a command gets: argv through our normal form and citty. */
function read(...argv: string[]) {
  const args = parseArgs(normalise(argv, OPTIONS), cittyArgs(OPTIONS))
  return { ...valuesOf(OPTIONS, args), _: args._ }
}

describe('flags', () => {
  test.each([
    [[], {}],
    [['-c', '32k'], { ctxSize: 32768 }],
    [['--ctx-size=4096'], { ctxSize: 4096 }],
    [['-ctk', 'q8_0'], { cacheTypeK: 'q8_0' }],
    [['-n', '-1'], { nPredict: -1 }],
    [['-c', '1k', '-c', '2k'], { ctxSize: 2048 }],
    [['--stop', 'a,b', '--json', '--stop=c'], { stop: 'a,b,c', json: true }],
    [['--temp', '0.25'], { temp: 0.25 }],
    [['-p', '-5 degrees'], { prompt: '-5 degrees' }],
    [['-p', ''], { prompt: '' }],
    [['-p', 'a=b --c'], { prompt: 'a=b --c' }],
    [['--prompt=--json'], { prompt: '--json' }],
    [['--json'], { json: true }],
    [['--no-json'], { json: false }],
    [['--no-bos'], { bos: false }],
  ])('%j', (argv, expected) => {
    expect(read(...argv)).toEqual({ ...DEFAULTS, ...expected, _: [] })
  })

  test.each([
    [['a.gguf', '--json'], ['a.gguf']],
    [['--json', 'a.gguf'], ['a.gguf']],
    [['--json', '--', '-odd.gguf'], ['-odd.gguf']],
    [['-'], ['-']],
  ])('%j has the positional arguments %j', (argv, expected) => {
    expect(read(...argv)._).toEqual(expected)
  })

  test.each([
    [['-n', '-5'], '--n-predict -5: must be -1 or more'],
    [['-n', 'many'], "'many' is not a whole number (such as 4096 or 32k)"],
    [['-n', '1.5'], "'1.5' is not a whole number (such as 4096 or 32k)"],
    [['-n'], '-n needs a value'],
    [['-n', '--json'], '-n needs a value'],
    [['--temp', 'warm'], '--temp warm: is not a number'],
    [['--temp', ''], '--temp : is not a number'],
    [['--temp', '101'], '--temp 101: must be 100 or less'],
    [['-ctk', 'f8'], '--cache-type-k f8: must be f16 or q8_0'],
    [['--jsno'], 'unknown option --jsno; did you mean --json?'],
    [['--ctx'], 'unknown option --ctx; did you mean --ctx-size?'],
    [['--frobnicate'], 'unknown option --frobnicate'],
    [['-x'], 'unknown option -x'],
    [['--json=1'], '--json takes no value'],
  ])('%j is refused: %s', (argv, message) => {
    expect(() => read(...argv)).toThrow(expect.objectContaining({ code: 'usage', message: expect.stringContaining(message) }))
  })
})

describe('environment', () => {
  const set = (name: string, value: string) => {
    process.env[envName(name)] = value
  }
  afterEach(() => {
    for (const name of Object.keys(OPTIONS)) delete process.env[envName(name)]
  })

  test('gives values that flags leave open', () => {
    set('ctx-size', '8k')
    set('json', '1')
    set('bos', 'off')
    expect(read()).toMatchObject({ ctxSize: 8192, json: true, bos: false })
    expect(read('-c', '1k', '--no-json', '--bos')).toMatchObject({ ctxSize: 1024, json: false, bos: true })
  })

  test('is checked like flags', () => {
    set('json', 'perhaps')
    expect(() => read()).toThrow("KVASIR_ARG_JSON='perhaps' is neither 1 nor 0")
  })
})

test.each([
  ['ctx-size', '-c, --ctx-size N'],
  ['json', '--json'],
  ['bos', '--no-bos'],
] as const)('help writes %s as %s', (name, expected) => {
  expect(spelling(name, OPTIONS[name])).toBe(expected)
})
