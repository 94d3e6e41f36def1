/**
 * How a setting is written, and what it means for a model.
 *
 * Text: `hip` · `streaming:window=1020` · `h2o:budget=20%+sparq:r=32,k=128`: `+` joins axes, `:` opens options.
 * JSON: `"hip"`, `{"method":"hip","k":512}`, or an array of such. `dense` is the name for nothing.
 */
import type { z } from 'zod'
import { KvasirError } from '../core/errors.ts'
import type { AttentionSetting, MethodSetting } from '../core/request.ts'
import type { ModelShape } from '../core/shape.ts'
import { Attention } from './attention.ts'
import { conflictOf } from './catalogue.ts'
import { METHODS } from './registry.ts'
import { type AnyMethod, AXES, type Keep, type Read, type Share } from './method.ts'
import { allowedText, defaultsOf, schemaOf } from './method-options.ts'

export const DENSE = 'dense'

/** Far more than any setting needs; what is longer is refused before it is looked at. */
const MOST_CHARS = 4096
const MOST_PARTS = 16

interface Chosen {
  readonly method: AnyMethod
  readonly options: Readonly<Record<string, unknown>>
}

/** Errors: `attention_invalid`, saying which name, option, pair or model it is about. */
export function attentionFor(setting: AttentionSetting, shape: ModelShape, methods: readonly AnyMethod[] = METHODS): Attention {
  const chosen = chosenOf(setting, methods)
  const axes: { share?: Share; keep?: Keep; read?: Read } = {}
  for (const { method, options } of chosen) {
    const reason = method.refuses?.(shape, options)
    if (reason) throw invalid(`${method.name} cannot serve this model: ${reason}`)
    if (method.axis === 'share') axes.share = method.bind(options, shape)
    else if (method.axis === 'keep') axes.keep = method.bind(options, shape)
    else axes.read = method.bind(options, shape)
  }
  return new Attention(write(chosen), shape, axes)
}

/** The setting in its shortest spelling; throws as {@link attentionFor} does for what no model could serve. */
export function canonicalSpec(setting: AttentionSetting, methods: readonly AnyMethod[] = METHODS): string {
  return write(chosenOf(setting, methods))
}

/** The same as objects: an empty array is dense. */
export function canonicalParts(setting: AttentionSetting, methods: readonly AnyMethod[] = METHODS): MethodSetting[] {
  return chosenOf(setting, methods).map((chosen) => ({ method: chosen.method.name, ...changed(chosen) }))
}

/**
 * A list of settings: `dense,streaming:sink=4,window=64,hip`. A comma before `option=` goes on with the setting before it,
 * every other comma begins the next.
 */
export function splitSpecs(text: string): string[] {
  return text.split(/,(?!\s*\w+\s*=)/).map((spec) => spec.trim())
}

/** Methods in the order of their axes. */
function chosenOf(setting: AttentionSetting, methods: readonly AnyMethod[]): Chosen[] {
  const parts = Array.isArray(setting) ? (setting as readonly (string | MethodSetting)[]) : [setting as string | MethodSetting]
  if (parts.length > MOST_PARTS)
    throw invalid(`a setting of ${parts.length} parts; there is at most one for each of ${AXES.join(', ')}`)
  const chosen = parts
    .flatMap((part) => (typeof part === 'string' ? fromText(part) : [fromObject(part)]))
    .filter((written) => !isDense(written))
    .map(({ name, options }) => ({ method: methodOf(name, methods), options }))
    .map(({ method, options }) => ({ method, options: optionsOf(method, options) }))
  for (const [i, a] of chosen.entries()) for (const b of chosen.slice(0, i)) checkPair(b.method, a.method)
  return chosen.sort((a, b) => AXES.indexOf(a.method.axis) - AXES.indexOf(b.method.axis))
}

interface Written {
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
}

function fromText(text: string): Written[] {
  if (text.length > MOST_CHARS) throw invalid(`a setting of ${text.length} characters; ${MOST_CHARS} are the most`)
  const parts = text.split('+')
  if (parts.length > MOST_PARTS)
    throw invalid(`a setting of ${parts.length} parts; there is at most one for each of ${AXES.join(', ')}`)
  return parts.map((part) => {
    const [, name, list] = /^([^:]*)(?::(.*))?$/s.exec(part)!
    if (list?.trim() === '') throw invalid(`nothing stands behind the colon of ${quote(part.trim())}`)
    const options = new Map<string, unknown>()
    for (const pair of list?.split(',') ?? []) {
      const [key, value] = pair.split('=').map((text) => text.trim())
      if (!key || !value || pair.split('=').length !== 2) throw invalid(`${quote(pair)} in ${quote(part)} should be option=value`)
      if (options.has(key)) throw invalid(`option ${quote(key)} stands twice in ${quote(part)}`)
      options.set(key, valueOf(value))
    }
    return { name: name!.trim(), options: Object.fromEntries(options) }
  })
}

/** Numbers and booleans as such; everything else stays text. */
function valueOf(text: string): unknown {
  if (text === 'true' || text === 'on') return true
  if (text === 'false' || text === 'off') return false
  const number = /^(-?\d+(?:\.\d+)?(?:e-?\d+)?)(k?)$/i.exec(text)
  return number ? Number(number[1]) * (number[2] === '' ? 1 : 1024) : text
}

function fromObject(object: MethodSetting): Written {
  if (typeof object !== 'object' || object === null || typeof object.method !== 'string') {
    throw invalid(`a setting is a text, an object with 'method', or an array of these`)
  }
  const { method, ...options } = object
  return { name: method, options }
}

function isDense({ name, options }: Written): boolean {
  if (name !== DENSE) return false
  const [option] = Object.keys(options)
  if (option !== undefined) throw invalid(`${DENSE} has no options, so none named ${quote(option)}`)
  return true
}

export function methodOf(name: string, methods: readonly AnyMethod[] = METHODS): AnyMethod {
  const found = methods.find((method) => method.name === name)
  if (found) return found
  throw invalid(`unknown method ${quote(name)}; known: ${[DENSE, ...methods.map((method) => method.name)].join(', ')}`)
}

function optionsOf(method: AnyMethod, given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const known = Object.keys(method.options.shape as object)
  const unknown = Object.keys(given).find((key) => !known.includes(key))
  if (unknown !== undefined) throw invalid(`${method.name} has no option ${quote(unknown)}; it has ${known.join(', ') || 'none'}`)
  const result = (method.options as z.ZodObject).safeParse(given)
  if (result.success) return result.data
  throw invalid(`${method.name}: ${faultOf(method, given, result.error.issues[0]!)}`)
}

/** `window is 0, and should be a whole number from 1 to 1048576`, and what the schema itself has to say. */
function faultOf(method: AnyMethod, given: Readonly<Record<string, unknown>>, issue: z.core.$ZodIssue): string {
  const name = String(issue.path[0] ?? '')
  const schema = schemaOf(method).properties[name]
  if (schema === undefined) return issue.message
  const value = quote(Object.hasOwn(given, name) ? given[name] : defaultsOf(method)[name])
  if (issue.code === 'custom') return `${name} is ${value}: ${issue.message}`
  const own = formatsOf(issue).map((message) => ` (${message})`)
  return `${name} is ${value}, and should be ${allowedText(schema)}${own.join('')}`
}

/** What the schema says of texts it does not take. */
function formatsOf(issue: z.core.$ZodIssue): string[] {
  if (issue.code === 'invalid_union') return issue.errors.flat().flatMap(formatsOf)
  return issue.code === 'invalid_format' ? [issue.message] : []
}

function checkPair(a: AnyMethod, b: AnyMethod): void {
  if (a.axis === b.axis)
    throw invalid(`${a.name} and ${b.name} answer the same question (${a.axis}); a setting takes one of them`)
  const why = conflictOf(a, b)
  if (why !== undefined) throw invalid(`${a.name} and ${b.name} cannot work together: ${why}`)
}

/** The options that are not the defaults. */
function changed({ method, options }: Chosen): Record<string, unknown> {
  const defaults = defaultsOf(method)
  return Object.fromEntries(Object.entries(options).filter(([key, value]) => value !== defaults[key]))
}

function write(chosen: readonly Chosen[]): string {
  if (chosen.length === 0) return DENSE
  return chosen
    .map((one) => {
      const list = Object.entries(changed(one)).map(([key, value]) => `${key}=${String(value)}`)
      return list.length === 0 ? one.method.name : `${one.method.name}:${list.join(',')}`
    })
    .join('+')
}

const MOST_QUOTED = 60

/** A value as it was given, short enough for a message. */
function quote(value: unknown): string {
  if (typeof value === 'string') return value.length > MOST_QUOTED ? `'${value.slice(0, MOST_QUOTED)}…'` : `'${value}'`
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object'
  return String(value)
}

function invalid(reason: string): KvasirError {
  return new KvasirError('attention_invalid', { reason, param: 'attention' })
}
