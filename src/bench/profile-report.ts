/** A profile as tables for people, as one JSON object, or its operations as CSV. */
import type { PieceTime } from './piece-times.ts'
import type { Profile, TestProfile } from './profile-result.ts'
import { type ReportFormat, testName, toCsv } from './report.ts'
import { markdownTable, type TableColumn } from './table.ts'

/** Ends with a line break. */
export function formatProfile(profile: Profile, format: ReportFormat): string {
  if (format === 'json') return `${JSON.stringify(profile, null, 2)}\n`
  if (format === 'csv') {
    const { tests, ...head } = profile
    return toCsv(
      tests.flatMap(({ pieces, versus, ...test }) =>
        pieces.map((piece) => ({ ...head, ...test, ...piece, versus_seconds: versus?.seconds })),
      ),
    )
  }
  return profile.tests.map((test) => formatTest(profile, test)).join('\n')
}

function formatTest({ model_type, n_threads }: Profile, test: TestProfile): string {
  const { pieces, attention } = test
  const lap = test.n_prompt > 0 ? 'the whole prompt' : 'one token'
  const cost = (test.piece_cost_seconds * 1e6).toFixed(1)
  return [
    `## ${testName(test)}, ${model_type}, ${attention}, threads: ${n_threads}\n`,
    `Milliseconds for ${lap}. Operations were computed one by one; ${cost} µs, what that costs, are taken off from each.\n`,
    `### Parts\n`,
    groupTable('part', pieces, ({ part }) => part),
    `### Operations\n`,
    groupTable('operation', pieces, ({ op, shape, flops }) => (flops === null ? op : `${op} ${shape}`)),
    `### Layers\n`,
    layerTable(pieces),
    `### All\n`,
    totals(test),
  ].join('\n')
}

/** Sums over pieces with the same name, in the order of their time. */
export function groupsOf(pieces: readonly PieceTime[], nameOf: (piece: PieceTime) => string): Map<string, PieceTime[]> {
  const groups = new Map<string, PieceTime[]>()
  for (const piece of pieces) {
    const group = groups.get(nameOf(piece)) ?? []
    group.push(piece)
    groups.set(nameOf(piece), group)
  }
  return new Map([...groups].toSorted(([, a], [, b]) => secondsOf(b) - secondsOf(a)))
}

export function secondsOf(pieces: readonly PieceTime[]): number {
  return pieces.reduce((sum, { seconds }) => sum + seconds, 0)
}

const left = (title: string): TableColumn => ({ title, align: 'left' })
const right = (title: string): TableColumn => ({ title, align: 'right' })

function groupTable(title: string, pieces: readonly PieceTime[], nameOf: (piece: PieceTime) => string): string {
  const total = secondsOf(pieces)
  const row = (name: string, group: readonly PieceTime[]): string[] => {
    const seconds = secondsOf(group)
    const counted = group.filter(({ flops }) => flops !== null)
    const flops = counted.reduce((sum, piece) => sum + piece.flops!, 0)
    const bytes = group.reduce((sum, piece) => sum + piece.bytes, 0)
    return [
      name,
      ms(seconds),
      percent(seconds, total),
      String(group.length),
      rate(flops, secondsOf(counted)),
      rate(bytes, seconds),
    ]
  }
  const columns = [left(title), right('ms'), right('%'), right('operations'), right('GFLOP/s'), right('GB/s')]
  return markdownTable(columns, [...[...groupsOf(pieces, nameOf)].map(([name, group]) => row(name, group)), row('sum', pieces)])
}

/** Parts beside each other, layers below each other. */
function layerTable(pieces: readonly PieceTime[]): string {
  const ofLayers = pieces.filter(({ il }) => il !== null)
  const parts = [...groupsOf(ofLayers, ({ part }) => part).keys()]
  const layers = [...new Set(ofLayers.map(({ il }) => il!))].toSorted((a, b) => a - b)
  const rows = layers.map((il) => {
    const own = ofLayers.filter((piece) => piece.il === il)
    return [String(il), ms(secondsOf(own)), ...parts.map((part) => ms(secondsOf(own.filter((piece) => piece.part === part))))]
  })
  return markdownTable([right('layer'), right('ms'), ...parts.map(right)], rows)
}

function totals(test: TestProfile): string {
  const { lap_seconds: lap, versus } = test
  const lines: [name: string, median: number, least?: number][] = [
    ['operations, one by one', secondsOf(test.pieces)],
    ['operations, at once', test.compute_seconds, test.compute_seconds_least],
    ['recording graphs', test.record_seconds],
    ['filling inputs', test.fill_seconds],
    ['reading logits', test.read_seconds],
    ['anything else outside compute', test.rest_seconds],
    ['kvasir', lap, test.lap_seconds_least],
  ]
  if (versus) lines.push([versus.engine, versus.seconds, versus.seconds_least])
  const rows = lines.map(([name, seconds, least]) => [
    name,
    ms(seconds),
    percent(seconds, lap),
    least === undefined ? '' : ms(least),
  ])
  return markdownTable([left(''), right('ms'), right('%'), right('fastest')], rows)
}

function ms(seconds: number): string {
  return (seconds * 1000).toFixed(3)
}

function percent(seconds: number, of: number): string {
  return of > 0 ? ((100 * seconds) / of).toFixed(1) : ''
}

/** Billions per second. */
function rate(amount: number, seconds: number): string {
  return amount > 0 && seconds > 0 ? (amount / seconds / 1e9).toFixed(1) : ''
}
