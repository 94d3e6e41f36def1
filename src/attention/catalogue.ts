/** What there is to choose from, as data: `kvasir methods`, docs/methods.md, `/props` and the form of the web page are made of it. */
import { layerShapes, type ModelShape } from '../core/shape.ts'
import { METHODS } from './registry.ts'
import { type AnyMethod, AXES, type AxisName } from './method.ts'
import { defaultsOf, type MethodSchema, schemaOf } from './method-options.ts'

/** The question that a method of an axis answers. */
export const AXIS_QUESTIONS: Readonly<Record<AxisName, string>> = {
  share: 'whose queries, keys and values a head or layer uses',
  keep: 'which rows stay in the cache',
  read: 'which of the kept rows a query reads',
}

/** The letters in {@link MethodInfo.cost}. */
export const COST_LETTERS =
  'T is the number of tokens before, H the query heads, G the KV heads, d their dimension, e the bytes of a cached element'

/** A method; the names of the fields are those of `/props`. */
export interface MethodInfo {
  readonly name: string
  readonly axis: AxisName
  readonly summary: string
  readonly source: string
  readonly cost: string
  /** What it needs that an ordinary model lacks. */
  readonly needs?: string
  /** The setting with an option or two spelled out. */
  readonly example: string
  /** JSON Schema. */
  readonly options: MethodSchema
  /** Of the options that have one value for it; the description of the others says what they are by themselves. */
  readonly defaults: Readonly<Record<string, unknown>>
  /** Methods of other axes that it works with. */
  readonly composes_with: readonly string[]
  /** Methods of other axes that it cannot work with, and why. */
  readonly conflicts: Readonly<Record<string, string>>
}

/** Every method, in the order of the axes. */
export function methodInfos(methods: readonly AnyMethod[] = METHODS): MethodInfo[] {
  return AXES.flatMap((axis) => methods.filter((method) => method.axis === axis)).map((method) => infoOf(method, methods))
}

function infoOf(method: AnyMethod, methods: readonly AnyMethod[]): MethodInfo {
  const { name, axis, summary, source, cost } = method
  const others = methods.filter((other) => other.axis !== axis)
  const clashes = others.flatMap((other): [string, string][] => {
    const why = conflictOf(method, other)
    return why === undefined ? [] : [[other.name, why]]
  })
  const conflicts = Object.fromEntries(clashes)
  const defaults = defaultsOf(method)
  return {
    name,
    axis,
    summary,
    source,
    cost,
    ...(method.needs !== undefined && { needs: method.needs }),
    example: exampleOf(method, defaults),
    options: schemaOf(method),
    defaults,
    composes_with: others.map((other) => other.name).filter((other) => !Object.hasOwn(conflicts, other)),
    conflicts,
  }
}

function exampleOf(method: AnyMethod, defaults: MethodInfo['defaults']): string {
  const [first] = Object.entries(defaults)
  const options = method.example ?? (first && `${first[0]}=${String(first[1])}`)
  return options === undefined ? method.name : `${method.name}:${options}`
}

/** Why two methods of different axes cannot work together; undefined if they can. */
export function conflictOf(a: AnyMethod, b: AnyMethod): string | undefined {
  const told = (method: AnyMethod, other: AnyMethod) =>
    method.conflicts !== undefined && Object.hasOwn(method.conflicts, other.name) ? method.conflicts[other.name] : undefined
  return told(a, b) ?? told(b, a) ?? otherRows(a, b) ?? otherRows(b, a) ?? untold(a, b) ?? untold(b, a)
}

function otherRows(share: AnyMethod, keep: AnyMethod): string | undefined {
  if (share.axis !== 'share' || !share.wantsSameRows || keep.axis !== 'keep' || keep.sameRows) return undefined
  return `${share.name} uses rows of one layer in another, and ${keep.name} keeps other rows in each`
}

/** A shape to ask a method by what it is like on any. */
const ANY = { arch: '', nLayer: 1, nEmbd: 8, nHead: 1, nHeadKv: 1, headDim: 8, nFf: 8, nVocab: 1, nCtxTrain: 1 }
const ANY_SHAPE: ModelShape = { ...ANY, layers: layerShapes(ANY) }

function untold(share: AnyMethod, keep: AnyMethod): string | undefined {
  if (share.axis !== 'share' || !share.tellsNoProbs || keep.axis !== 'keep') return undefined
  if (!keep.bind(defaultsOf(keep), ANY_SHAPE).wantsProbs) return undefined
  return `${keep.name} goes by the attention of every head, and ${share.name} has that of some`
}
