/** Reading hyper-parameters: every number is checked before anything is computed from it. */
import { KvasirError } from '../core/errors.ts'
import type { MetadataValue, WeightSource } from '../weights/source.ts'

export class Fields {
  readonly #source: WeightSource
  readonly #prefix: string
  readonly #values: { readonly [key: string]: MetadataValue } | null

  /** The file's own fields, or, with `values`, those of an object inside them. */
  constructor(source: WeightSource, prefix = '', values: { readonly [key: string]: MetadataValue } | null = null) {
    this.#source = source
    this.#prefix = prefix
    this.#values = values
  }

  get(key: string): MetadataValue | undefined {
    const value = this.#values ? this.#values[key] : this.#source.metadata(this.#prefix + key)
    return value ?? undefined
  }

  /** The fields of an object, empty if there is none. */
  object(key: string): Fields {
    const value = this.get(key)
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    return new Fields(
      this.#source,
      `${this.#prefix}${key}.`,
      isObject ? (value as { readonly [key: string]: MetadataValue }) : {},
    )
  }

  /** A whole number from 1 to `most`. */
  count(key: string, most: number, fallback?: number): number {
    // Some files give one number per layer; that they are all the same is all we know to serve.
    const value = this.get(key)
    const single =
      Array.isArray(value) && value.length > 0 && value.every((v) => v === value[0]) ? (value[0] as MetadataValue) : value
    if (single === undefined && fallback !== undefined) return fallback
    if (Array.isArray(single)) throw this.unsupported(`${this.#prefix}${key} differs between layers`)
    if (typeof single === 'number' && Number.isInteger(single) && single >= 1 && single <= most) return single
    throw this.invalid(key, single, `a whole number from 1 to ${most}`)
  }

  /** A finite number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.get(key)
    if (value === undefined && fallback !== undefined) return fallback
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
    throw this.invalid(key, value, 'a number above 0')
  }

  text(key: string): string | undefined {
    const value = this.get(key)
    return typeof value === 'string' ? value : undefined
  }

  flag(key: string): boolean {
    return this.get(key) === true
  }

  unsupported(reason: string): KvasirError {
    return new KvasirError('model_unsupported', { path: this.#source.path, reason })
  }

  invalid(key: string, value: MetadataValue | undefined, wanted: string): KvasirError {
    const found = value === undefined ? 'missing' : JSON.stringify(value).slice(0, 60)
    const reason = `${this.#prefix}${key} is ${found}, and should be ${wanted}`
    return new KvasirError('model_invalid', { path: this.#source.path, reason })
  }
}
