/** Sampling as the page offers it: one row per field, from which the form and the check of stored values follow. */
import type { SamplingParams } from '../../src/core/sampling.ts'

export interface NumberSpec {
  readonly name: string
  readonly label: string
  readonly min: number
  readonly max: number
  /** 1 asks for a whole number. */
  readonly step: number
  readonly hint: string
  /** Shown where the server does not say what it does by itself. */
  readonly otherwise: string
}

type FieldName = keyof SamplingParams | 'max_tokens'

export const SAMPLING = [
  {
    name: 'temperature',
    label: 'Temperature',
    min: 0,
    max: 100,
    step: 0.1,
    hint: '0 always takes the most likely token',
    otherwise: '',
  },
  {
    name: 'top_p',
    label: 'Top p',
    min: 0,
    max: 1,
    step: 0.05,
    hint: 'smallest set that reaches this probability',
    otherwise: '',
  },
  { name: 'top_k', label: 'Top k', min: 0, max: 1_000_000, step: 1, hint: 'the k most likely tokens; 0 is all', otherwise: '' },
  {
    name: 'min_p',
    label: 'Min p',
    min: 0,
    max: 1,
    step: 0.01,
    hint: 'drops tokens below this share of the best one',
    otherwise: '',
  },
  {
    name: 'max_tokens',
    label: 'Max tokens',
    min: 1,
    max: 10_000_000,
    step: 1,
    hint: 'length of an answer',
    otherwise: 'context',
  },
  {
    name: 'seed',
    label: 'Seed',
    min: 0,
    max: 2 ** 32 - 1,
    step: 1,
    hint: 'the same seed gives the same answer',
    otherwise: 'random',
  },
] as const satisfies readonly (NumberSpec & { name: FieldName })[]

/** Only what the reader has set; all else is left to the server. */
export type Sampling = Readonly<Partial<Record<(typeof SAMPLING)[number]['name'], number>>>

export function isAllowed(spec: NumberSpec, value: unknown): value is number {
  return typeof value === 'number' && value >= spec.min && value <= spec.max && (spec.step < 1 || Number.isInteger(value))
}

export function samplingFrom(stored: unknown): Sampling {
  const values = typeof stored === 'object' && stored !== null ? (stored as Record<string, unknown>) : {}
  return Object.fromEntries(SAMPLING.filter((spec) => isAllowed(spec, values[spec.name])).map(({ name }) => [name, values[name]]))
}
