/** Methods of attention as the page offers them: from what `/props` says, so that a new method needs no line here. */
import type { MethodSetting } from '../../src/core/request.ts'
import type { NumberSpec } from './sampling.ts'

/** The part of JSON Schema that options use. */
export interface OptionSchema {
  readonly type?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly description?: string
}

export interface MethodInfo {
  readonly name: string
  readonly axis: string
  readonly summary: string
  readonly source: string
  readonly cost: string
  readonly options: { readonly properties: Readonly<Record<string, OptionSchema>> }
  readonly conflicts: Readonly<Record<string, string>>
}

/** What the server can do, and what it does when a request names nothing. */
export interface Methods {
  readonly all: readonly MethodInfo[]
  /** What a method of an axis decides. */
  readonly questions: Readonly<Record<string, string>>
  readonly byDefault: readonly MethodSetting[]
}

export const NO_METHODS: Methods = { all: [], questions: {}, byDefault: [] }

export type OptionValue = number | boolean | string

/** One option of a form. */
export type OptionSpec =
  | { readonly kind: 'number'; readonly spec: NumberSpec }
  | { readonly kind: 'choice'; readonly values: readonly OptionValue[]; readonly hint: string }
  | { readonly kind: 'switch'; readonly hint: string }
  | { readonly kind: 'text'; readonly hint: string }

const MOST = 2 ** 31

/** How an option is asked for; what no schema of ours describes is asked for as text. */
export function optionSpec(name: string, schema: OptionSchema): OptionSpec {
  const hint = schema.description ?? ''
  if (schema.enum) return { kind: 'choice', values: schema.enum as OptionValue[], hint }
  if (schema.type === 'boolean') return { kind: 'switch', hint }
  if (schema.type !== 'integer' && schema.type !== 'number') return { kind: 'text', hint }
  const min = Math.max(schema.minimum ?? -MOST, -MOST)
  const max = Math.min(schema.maximum ?? MOST, MOST)
  const step = schema.type === 'integer' ? 1 : 0.1
  return { kind: 'number', spec: { name, label: name, min, max, step, hint, otherwise: String(schema.default ?? '') } }
}

/** Axes that have a method, in the order of the server, with their methods. */
export function axesOf(all: readonly MethodInfo[]): { readonly axis: string; readonly methods: readonly MethodInfo[] }[] {
  const axes = [...new Set(all.map(({ axis }) => axis))]
  return axes.map((axis) => ({ axis, methods: all.filter((method) => method.axis === axis) }))
}

/** What a setting takes on an axis. */
export function onAxis(setting: readonly MethodSetting[], axis: string, all: readonly MethodInfo[]): MethodSetting | undefined {
  return setting.find(({ method }) => all.find(({ name }) => name === method)?.axis === axis)
}

/** The setting with another method, or none, on an axis. */
export function choose(
  setting: readonly MethodSetting[],
  { axis, method }: { readonly axis: string; readonly method: MethodSetting | null },
  all: readonly MethodInfo[],
): MethodSetting[] {
  const before = onAxis(setting, axis, all)
  const others = setting.filter((one) => one !== before)
  return method === null ? others : [...others, method]
}

/** The method with an option changed; undefined leaves it to the server. */
export function withOption(setting: MethodSetting, name: string, value: OptionValue | undefined): MethodSetting {
  const { [name]: _, ...others } = setting
  return { ...(value === undefined ? others : { ...others, [name]: value }), method: setting.method }
}

/** Why a method cannot be taken beside what is chosen on the other axes; null if it can. */
export function obstacle(setting: readonly MethodSetting[], method: MethodInfo, all: readonly MethodInfo[]): string | null {
  for (const { method: name } of setting) {
    const other = all.find((one) => one.name === name)
    if (other === undefined || other.axis === method.axis) continue
    const why = method.conflicts[name] ?? other.conflicts[method.name]
    if (why !== undefined) return `not with ${name}: ${why}`
  }
  return null
}

/** Of a stored setting what the server knows; null stands for the server's own, and for what is no setting. */
export function settingFrom(stored: unknown, all: readonly MethodInfo[]): MethodSetting[] | null {
  if (!Array.isArray(stored)) return null
  const known = stored.flatMap((one: unknown): MethodSetting[] => {
    const given = typeof one === 'object' && one !== null ? (one as Record<string, unknown>) : {}
    const info = all.find(({ name }) => name === given.method)
    if (info === undefined) return []
    const options = Object.entries(info.options.properties).filter(([name, schema]) => isAllowedOption(name, schema, given[name]))
    return [{ ...Object.fromEntries(options.map(([name]) => [name, given[name]])), method: info.name }]
  })
  if (known.length === 0 && stored.length > 0) return null
  const isFirst = (one: MethodSetting, at: number) => known.indexOf(onAxis(known, axisOf(one, all), all)!) === at
  return known.filter(isFirst)
}

function axisOf({ method }: MethodSetting, all: readonly MethodInfo[]): string {
  return all.find(({ name }) => name === method)!.axis
}

export function isAllowedOption(name: string, schema: OptionSchema, value: unknown): value is OptionValue {
  const option = optionSpec(name, schema)
  if (option.kind === 'choice') return option.values.includes(value as OptionValue)
  if (option.kind === 'switch') return typeof value === 'boolean'
  if (option.kind === 'text') return typeof value === 'string' || typeof value === 'number'
  const { min, max, step } = option.spec
  return typeof value === 'number' && value >= min && value <= max && (step !== 1 || Number.isInteger(value))
}

/** Text as the options of a method take it: a number where it is one. */
export function textValue(typed: string): OptionValue | undefined {
  const text = typed.trim()
  if (text === '') return undefined
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text
}
