/**
 * Options of commands. Each command has one table of them, by long name; help, parsing, the environment and docs/cli.md
 * follow from it. Argv is normalised to `--name=value` first, because citty knows no multi-letter short flags (-ctk, -npl).
 */
import type { ArgsDef } from 'citty'
import type { z } from 'zod'
import { KvasirError } from '../core/errors.ts'
import { nearest } from './suggest.ts'

export interface Option<T = unknown> {
  /** Without its dash: `n`, `ctk`. */
  readonly short?: string
  /** What stands for the value in help; an option without one is a switch. One that ends with `,…` is a list, and may be repeated. */
  readonly hint?: string
  readonly about: string
  /** Text → what `schema` checks; absent for text and switches. */
  readonly convert?: (text: string) => unknown
  /** Range and default. A switch that is on by default is turned off by `--no-NAME`. */
  readonly schema: z.ZodType<T>
}

export type Options = Readonly<Record<string, Option>>

type Camel<S extends string> = S extends `${infer A}-${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S
/** The values of a table, by camel-case names. */
export type Values<O extends Options> = { readonly [K in keyof O & string as Camel<K>]: z.infer<O[K]['schema']> }

const ENV_PREFIX = 'KVASIR_ARG_'

/** `ctx-size` → `KVASIR_ARG_CTX_SIZE`. */
export function envName(name: string): string {
  return ENV_PREFIX + name.toUpperCase().replaceAll('-', '_')
}

/** The value an option has when nothing is given; undefined if it has none. */
export function defaultOf(option: Option): unknown {
  return option.schema.safeParse(undefined).data
}

/** How an option is written in help: `-c, --ctx-size N`. */
export function spelling(name: string, option: Option): string {
  const isOn = option.hint === undefined && defaultOf(option) === true
  const long = `--${isOn ? 'no-' : ''}${name}${option.hint === undefined ? '' : ` ${option.hint}`}`
  return option.short === undefined ? long : `-${option.short}, ${long}`
}

/** `-c 32k --json doc.txt` → `--ctx-size=32k --json=true -- doc.txt`. Unknown flags and missing values are usage errors. */
export function normalise(argv: readonly string[], options: Options): string[] {
  const flags = flagsOf(options)
  const given: string[] = []
  const positional: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!
    if (arg === '--') {
      positional.push(...argv.slice(i + 1))
      break
    }
    if (arg === '-' || !arg.startsWith('-')) {
      positional.push(arg)
      continue
    }
    const [flag, inline] = splitOnce(arg)
    const found = flags.get(flag)
    if (found === undefined) throw unknownFlag(flag, [...flags.keys()])
    if (found.fixed !== undefined && inline !== undefined) throw usage(`${flag} takes no value`)
    const value = found.fixed ?? inline ?? argv[++i]
    if (value === undefined || (inline === undefined && found.fixed === undefined && flags.has(value)))
      throw usage(`${flag} needs a value`)
    const before = found.isList ? given.findIndex((other) => other.startsWith(`--${found.name}=`)) : -1
    if (before < 0) given.push(`--${found.name}=${value}`)
    else given[before] += `,${value}`
  }
  return positional.length > 0 ? [...given, '--', ...positional] : given
}

interface Flag {
  readonly name: string
  /** The value of a switch; undefined for flags that take one. */
  readonly fixed: string | undefined
  readonly isList: boolean
}

function flagsOf(options: Options): Map<string, Flag> {
  const flags = new Map<string, Flag>()
  for (const [name, option] of Object.entries(options)) {
    const isList = option.hint?.endsWith(',…') === true
    const flag: Flag = { name, fixed: option.hint === undefined ? 'true' : undefined, isList }
    flags.set(`--${name}`, flag)
    if (option.short !== undefined) flags.set(`-${option.short}`, flag)
    if (option.hint === undefined) flags.set(`--no-${name}`, { name, fixed: 'false', isList })
  }
  return flags
}

function splitOnce(arg: string): [flag: string, inline: string | undefined] {
  const at = arg.indexOf('=')
  return at < 0 || !arg.startsWith('--') ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)]
}

function unknownFlag(flag: string, known: readonly string[]): KvasirError {
  const near = nearest(flag, known)
  return usage(`unknown option ${flag}${near === undefined ? '' : `; did you mean ${near}?`}`)
}

/** The table as citty wants it. */
export function cittyArgs(options: Options): ArgsDef {
  const entries = Object.entries(options).map(([name, option]) => [
    name,
    { type: option.hint === undefined ? 'boolean' : 'string', description: option.about } as const,
  ])
  return Object.fromEntries(entries) as ArgsDef
}

/** Flags, then the environment, then defaults, converted and checked. */
export function valuesOf<O extends Options>(options: O, given: Readonly<Record<string, unknown>>): Values<O> {
  const values: Record<string, unknown> = {}
  for (const [name, option] of Object.entries(options)) {
    const fromEnv = given[name] === undefined ? process.env[envName(name)] : undefined
    const raw = given[name] ?? (option.hint === undefined ? switchOf(name, fromEnv) : fromEnv)
    values[name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())] = valueOf(name, option, raw)
  }
  return values as Values<O>
}

function switchOf(name: string, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined
  if (/^(1|true|on|yes)$/i.test(text)) return true
  if (/^(0|false|off|no)$/i.test(text)) return false
  throw usage(`${envName(name)}='${text}' is neither 1 nor 0`)
}

function valueOf(name: string, option: Option, raw: unknown): unknown {
  const value = typeof raw === 'string' && option.convert ? option.convert(raw) : raw
  const result = option.schema.safeParse(value)
  if (result.success) return result.data
  throw usage(`--${name} ${String(raw)}: ${issueText(result.error.issues[0]!)}`)
}

function issueText(issue: z.core.$ZodIssue): string {
  if (issue.code === 'too_small')
    return `must be ${issue.inclusive === false ? 'more than ' : ''}${issue.minimum}${issue.inclusive === false ? '' : ' or more'}`
  if (issue.code === 'too_big') return `must be ${issue.maximum} or less`
  if (issue.code === 'invalid_type') return `is not a ${issue.expected === 'int' ? 'whole number' : issue.expected}`
  if (issue.code === 'invalid_value') return `must be ${issue.values.join(' or ')}`
  return issue.message
}

export function usage(reason: string): KvasirError {
  return new KvasirError('usage', { reason })
}

/** A decimal number; NaN for anything else, which no schema takes. */
export function toNumber(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text)
}
