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
import { METHODS } from './index.ts'
import type { AnyMethod, Keep, Read } from './method.ts'

const DENSE = 'dense'

interface Chosen {
  readonly method: AnyMethod
  readonly options: Readonly<Record<string, unknown>>
}

/** Errors: `attention_invalid`, saying which name, option, pair or model it is about. */
export function attentionFor(setting: AttentionSetting, shape: ModelShape): Attention {
  const chosen = chosenOf(setting)
  const axes: { keep?: Keep; read?: Read } = {}
  for (const { method, options } of chosen) {
    const reason = method.refuses?.(shape, options)
    if (reason) throw invalid(`${method.name} cannot serve this model: ${reason}`)
    if (method.axis === 'keep') axes.keep = method.bind(options, shape)
    else axes.read = method.bind(options, shape)
  }
  return new Attention(write(chosen), axes)
}

/** The setting in its shortest spelling; throws as {@link attentionFor} does for what no model could serve. */
export function canonicalSpec(setting: AttentionSetting): string {
  return write(chosenOf(setting))
}

function chosenOf(setting: AttentionSetting): Chosen[] {
  const parts = Array.isArray(setting) ? (setting as readonly (string | MethodSetting)[]) : [setting as string | MethodSetting]
  const chosen = parts
    .flatMap((part) => (typeof part === 'string' ? fromText(part) : [fromObject(part)]))
    .filter(({ name }) => name !== DENSE)
    .map(({ name, options }) => ({ method: methodOf(name), options }))
    .map(({ method, options }) => ({ method, options: optionsOf(method, options) }))
  for (const [i, a] of chosen.entries()) for (const b of chosen.slice(0, i)) checkPair(b.method, a.method)
  return chosen
}

interface Written {
  readonly name: string
  readonly options: Record<string, unknown>
}

function fromText(text: string): Written[] {
  return text.split('+').map((part) => {
    const [name, ...rest] = part.trim().split(':')
    const list = rest.join(':')
    const pairs = list === '' ? [] : list.split(',').map((pair) => pair.split('='))
    for (const pair of pairs) {
      if (pair.length !== 2) throw invalid(`'${pair.join('=')}' in '${part}' should be option=value`)
    }
    return { name: name!, options: Object.fromEntries(pairs.map(([key, value]) => [key!.trim(), valueOf(value!.trim())])) }
  })
}

/** Numbers and booleans as such; everything else stays text. */
function valueOf(text: string): unknown {
  if (text === 'true' || text === 'on') return true
  if (text === 'false' || text === 'off') return false
  const number = /^(-?\d+(?:\.\d+)?)(k?)$/i.exec(text)
  return number ? Number(number[1]) * (number[2] === '' ? 1 : 1024) : text
}

function fromObject(object: MethodSetting): Written {
  if (typeof object !== 'object' || object === null || typeof object.method !== 'string') {
    throw invalid(`an attention setting is a text, an object with 'method', or an array of these`)
  }
  const { method, ...options } = object
  return { name: method, options }
}

function methodOf(name: string): AnyMethod {
  const found = METHODS.find((method) => method.name === name)
  if (found) return found
  throw invalid(`unknown method '${name}'; known: ${[DENSE, ...METHODS.map((method) => method.name)].join(', ')}`)
}

function optionsOf(method: AnyMethod, given: Record<string, unknown>): Record<string, unknown> {
  const schema = method.options as z.ZodObject
  const known = Object.keys(schema.shape)
  const unknown = Object.keys(given).find((key) => !known.includes(key))
  if (unknown !== undefined) throw invalid(`${method.name} has no option '${unknown}'; it has ${known.join(', ')}`)
  const result = schema.safeParse(given)
  if (result.success) return result.data
  const { path, message } = result.error.issues[0]!
  throw invalid(`${method.name}: ${path.join('.')} is ${JSON.stringify(given[String(path[0])])}: ${message}`)
}

function checkPair(a: AnyMethod, b: AnyMethod): void {
  if (a.axis === b.axis)
    throw invalid(`${a.name} and ${b.name} answer the same question (${a.axis}); a setting takes one of them`)
  const why = a.conflicts?.[b.name] ?? b.conflicts?.[a.name]
  if (why !== undefined) throw invalid(`${a.name} and ${b.name} cannot work together: ${why}`)
}

/** Methods in the order of their axes, with the options that are not the defaults. */
function write(chosen: readonly Chosen[]): string {
  if (chosen.length === 0) return DENSE
  const order = (method: AnyMethod) => METHODS.indexOf(method)
  return [...chosen]
    .sort((a, b) => order(a.method) - order(b.method))
    .map(({ method, options }) => {
      const defaults = (method.options as z.ZodObject).parse({}) as Record<string, unknown>
      const changed = Object.entries(options).filter(([key, value]) => value !== defaults[key])
      const list = changed.map(([key, value]) => `${key}=${value}`).join(',')
      return list === '' ? method.name : `${method.name}:${list}`
    })
    .join('+')
}

function invalid(reason: string): KvasirError {
  return new KvasirError('attention_invalid', { reason })
}
