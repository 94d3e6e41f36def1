/** What a method can be told, as people and forms need it: derived from the zod schema of its options. */
import { z } from 'zod'
import type { AnyMethod } from './method.ts'

/** The part of JSON Schema that options use. */
export interface OptionSchema {
  readonly type?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly anyOf?: readonly OptionSchema[]
  readonly default?: unknown
  readonly description?: string
}

export interface MethodSchema {
  readonly type: 'object'
  readonly properties: Readonly<Record<string, OptionSchema>>
}

/** JSON Schema of a method's options, with defaults and descriptions. */
export function schemaOf(method: AnyMethod): MethodSchema {
  const { properties } = z.toJSONSchema(method.options as z.ZodObject, { io: 'input', unrepresentable: 'any' })
  return { type: 'object', properties: (properties ?? {}) as Record<string, OptionSchema> }
}

export function defaultsOf(method: AnyMethod): Record<string, unknown> {
  return (method.options as z.ZodObject).parse({})
}

/** `a whole number from 1 to 4096`, `first, last or center`, `true or false`. */
export function allowedText(schema: OptionSchema): string {
  if (schema.anyOf) return schema.anyOf.map(allowedText).join(', or ')
  if (schema.enum) return listText(schema.enum.map(String))
  if (schema.const !== undefined) return String(schema.const)
  if (schema.type === 'boolean') return 'true or false'
  if (schema.type === 'integer' || schema.type === 'number') {
    return `${schema.type === 'integer' ? 'a whole number' : 'a number'}${rangeText(schema)}`
  }
  return schema.type === 'string' ? 'a text' : 'a value'
}

function rangeText(schema: OptionSchema): string {
  const [min, max] = [bound(schema.minimum), bound(schema.maximum)]
  if (min !== undefined && max !== undefined) return ` from ${min} to ${max}`
  const parts = [
    min === undefined ? undefined : `${min} or more`,
    schema.exclusiveMinimum === undefined ? undefined : `more than ${schema.exclusiveMinimum}`,
    max === undefined ? undefined : `${max} or less`,
    schema.exclusiveMaximum === undefined ? undefined : `less than ${schema.exclusiveMaximum}`,
  ].filter((part) => part !== undefined)
  return parts.length === 0 ? '' : `, ${parts.join(' and ')}`
}

/** The bounds of all whole numbers that are exact are no bounds worth telling. */
function bound(value: number | undefined): number | undefined {
  return value === undefined || Math.abs(value) >= Number.MAX_SAFE_INTEGER ? undefined : value
}

function listText(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`
}
