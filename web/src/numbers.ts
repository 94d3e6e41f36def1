/** Numbers as the page writes them; no line breaks between a number and its unit. */
const SPACE = '\u00a0'

export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

/** `1 token`, `57 tokens`. */
export function tokens(value: number): string {
  return `${count(value)}${SPACE}token${Math.round(value) === 1 ? '' : 's'}`
}

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB']
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)}${SPACE}${units[unit]}`
}

export function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)}${SPACE}ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)}${SPACE}s`
}

export function perSecond(value: number): string {
  return `${value < 100 ? value.toFixed(1) : count(value)}${SPACE}tok/s`
}
