/** The course of a run: its numbers as JSON, and the loss as a picture (SVG). */
import { writeWhole } from '../core/write-whole.ts'

export interface Point {
  /** Steps done. */
  readonly step: number
  /** Mean over the step's tokens; null at the start. */
  readonly loss: number | null
  /** On the held-out text, where it was measured. */
  readonly heldOut: number | null
  readonly rate: number
  /** Length of the gradient, before it was limited. */
  readonly gradientNorm: number
  /** Seconds of training so far. */
  readonly seconds: number
}

const FIELDS = ['step', 'loss', 'heldOut', 'rate', 'gradientNorm', 'seconds'] as const

/** Point after point, NaN for null. */
export function encodePoints(points: readonly Point[]): number[] {
  return points.flatMap((point) => FIELDS.map((field) => point[field] ?? NaN))
}

export function decodePoints(numbers: readonly number[]): Point[] {
  return Array.from({ length: Math.floor(numbers.length / FIELDS.length) }, (_, i) => {
    const values = FIELDS.map((field, j) => {
      const value = numbers[i * FIELDS.length + j]!
      return [field, Number.isNaN(value) ? null : value] as const
    })
    return Object.fromEntries(values) as unknown as Point
  })
}

/** Writes `prefix`.json and `prefix`.svg. Errors: `file_error`. */
export async function writeCurve(prefix: string, title: string, points: readonly Point[]): Promise<void> {
  await writeWhole(`${prefix}.json`, `${JSON.stringify({ title, points }, null, 1)}\n`)
  await writeWhole(`${prefix}.svg`, curveSvg(title, points))
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [720, 400, 56, 16, 40, 44]
const TICKS = 5

/** The loss of each step, its mean over a fiftieth of the run, and the loss on held-out text. */
export function curveSvg(title: string, points: readonly Point[]): string {
  const of = (field: 'loss' | 'heldOut') =>
    points.flatMap(({ step, [field]: loss }) => (loss !== null && Number.isFinite(loss) ? [[step, loss] as const] : []))
  const [train, heldOut] = [of('loss'), of('heldOut')]
  const all = [...train, ...heldOut].map(([, loss]) => loss)
  const steps = Math.max(1, ...points.map((p) => p.step))
  const [least, most] = all.length > 0 ? padded(Math.min(...all), Math.max(...all)) : [0, 1]
  const x = (step: number) => (LEFT + ((WIDTH - LEFT - RIGHT) * step) / steps).toFixed(1)
  const y = (loss: number) => (TOP + ((HEIGHT - TOP - BOTTOM) * (most - loss)) / (most - least)).toFixed(1)
  const line = (values: readonly (readonly [number, number])[], style: string) =>
    `<polyline fill="none" ${style} points="${values.map(([step, loss]) => `${x(step)},${y(loss)}`).join(' ')}"/>`
  const ticks = Array.from({ length: TICKS + 1 }, (_, i) => i / TICKS)
  const rows = ticks.map((part) => least + (most - least) * part)
  const columns = [...new Set(ticks.map((part) => Math.round(steps * part)))]
  const legend = [
    ['#9ab8d8', 'each step'],
    ['#1f5fa8', 'mean'],
    ['#c0392b', 'held-out text'],
  ] as const
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="20" font-size="14">${escapeMarkup(title)}: loss (nats per token)</text>`,
    ...rows.map((loss) => `<path d="M${LEFT} ${y(loss)}H${WIDTH - RIGHT}" stroke="#ddd"/>`),
    ...rows.map((loss) => `<text x="${LEFT - 6}" y="${y(loss)}" dy="4" text-anchor="end">${loss.toFixed(2)}</text>`),
    ...columns.map((step) => `<text x="${x(step)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${step}</text>`),
    `<text x="${WIDTH - RIGHT}" y="${HEIGHT - 8}" text-anchor="end">step</text>`,
    line(train, `stroke="${legend[0][0]}"`),
    line(smoothed(train), `stroke="${legend[1][0]}" stroke-width="2"`),
    line(heldOut, `stroke="${legend[2][0]}" stroke-width="2"`),
    ...heldOut.map(([step, loss]) => `<circle cx="${x(step)}" cy="${y(loss)}" r="3" fill="${legend[2][0]}"/>`),
    ...legend.map(([colour, name], i) => `<text x="${LEFT + 8 + i * 110}" y="${HEIGHT - 8}" fill="${colour}">${name}</text>`),
    '</svg>',
    '',
  ].join('\n')
}

/** A little room above and below; some height even for one value. */
function padded(least: number, most: number): [number, number] {
  const room = Math.max(0.05, (most - least) * 0.05)
  return [least - room, most + room]
}

/** Each with those up to a fiftieth of the run before it. */
function smoothed(values: readonly (readonly [number, number])[]): [number, number][] {
  const n = Math.max(1, Math.round(values.length / 50))
  let sum = 0
  return values.map(([step, loss], i) => {
    sum += loss - (i >= n ? values[i - n]![1] : 0)
    return [step, sum / Math.min(i + 1, n)]
  })
}

export function escapeMarkup(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}
