/** Numbers as people type and read them: `32k` tokens, `4GiB` bytes. */
import { KvasirError } from './errors.ts'

const COUNT_UNITS: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2 }

/** `4096`, `32k`, `1m` → a count; k is 1024, as in context sizes. */
export function parseCount(text: string): number {
  const match = /^(-?\d+(?:\.\d+)?)\s*([km]?)$/i.exec(text.trim())
  const value = match ? Number(match[1]) * COUNT_UNITS[match[2]!.toLowerCase()]! : Number.NaN
  if (!Number.isInteger(value))
    throw new KvasirError('usage', { reason: `'${text}' is not a whole number (such as 4096 or 32k)` })
  return value
}

/** Bytes for people, in binary units. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`
}
