/** Rows → text: a table for people (llama-bench's, or llama-batched-bench's for several sequences), JSON, or CSV. */
import { formatBytes } from '../core/sizes.ts'
import { contenderName } from './contender.ts'
import { markdownTable } from './table.ts'
import { formatParams } from './results.ts'
import type { BenchRow } from './row.ts'

export const REPORT_FORMATS = ['md', 'json', 'csv'] as const
export type ReportFormat = (typeof REPORT_FORMATS)[number]

/** Ends with a line break. */
export function formatRows(rows: readonly BenchRow[], format: ReportFormat): string {
  if (format === 'json') return `${JSON.stringify(rows.map(flat), null, 2)}\n`
  if (format === 'csv') return toCsv(rows.map(flat))
  const batched = rows.some((row) => row.batched !== null)
  return formatTable(rows, batched ? BATCHED_COLUMNS : PLAIN_COLUMNS)
}

interface Column {
  readonly title: string
  readonly align: 'left' | 'right'
  readonly cell: (row: BenchRow) => string
  /** Shown only if some row has it. */
  readonly wanted?: (row: BenchRow) => boolean
}

const left = (title: string, cell: Column['cell']): Column => ({ title, align: 'left', cell })
const right = (title: string, cell: Column['cell'], wanted?: Column['wanted']): Column => ({
  title,
  align: 'right',
  cell,
  ...(wanted ? { wanted } : {}),
})

const isKnown = (value: number | null): value is number => value !== null

const ENGINE: readonly Column[] = [
  left('engine', (row) => contenderName({ engine: row.engine, flashAttn: row.flash_attn })),
  left('attention', (row) => row.attention),
]

const COST: readonly Column[] = [
  right('kv', (row) => formatBytes(row.kv_bytes)),
  right('rss', (row) => formatBytes(row.rss_bytes)),
  right(
    'outside compute',
    (row) => (isKnown(row.outside_compute) ? `${(100 * row.outside_compute).toFixed(1)} %` : ''),
    (row) => isKnown(row.outside_compute),
  ),
  right(
    'vs llama.cpp',
    (row) => (isKnown(row.vs_llama_cpp) ? `${row.vs_llama_cpp.toFixed(2)}×` : ''),
    (row) => isKnown(row.vs_llama_cpp),
  ),
]

const PLAIN_COLUMNS: readonly Column[] = [
  left('model', (row) => row.model_type),
  right('size', (row) => formatBytes(row.model_size)),
  right('params', (row) => formatParams(row.model_n_params)),
  left('backend', (row) => row.backends),
  right('threads', (row) => String(row.n_threads)),
  right(
    'type_k',
    (row) => row.type_k,
    (row) => row.type_k !== 'f16',
  ),
  right(
    'type_v',
    (row) => row.type_v,
    (row) => row.type_v !== 'f16',
  ),
  ...ENGINE,
  right('test', testName),
  right('t/s', (row) => `${row.avg_ts.toFixed(2)} ± ${row.stddev_ts.toFixed(2)}`),
  right('median t/s', (row) => row.median_ts.toFixed(2)),
  ...COST,
]

const BATCHED_COLUMNS: readonly Column[] = [
  ...ENGINE,
  right(
    'depth',
    (row) => String(row.n_depth),
    (row) => row.n_depth > 0,
  ),
  right('PP', (row) => String(row.batched?.pp)),
  right('TG', (row) => String(row.batched?.tg)),
  right('B', (row) => String(row.batched?.pl)),
  right('N_KV', (row) => String(row.batched?.n_kv)),
  right('T_PP s', (row) => row.batched?.t_pp.toFixed(3) ?? ''),
  right('S_PP t/s', (row) => row.batched?.speed_pp.toFixed(2) ?? ''),
  right('T_TG s', (row) => row.batched?.t_tg.toFixed(3) ?? ''),
  right('S_TG t/s', (row) => row.batched?.speed_tg.toFixed(2) ?? ''),
  right('T s', (row) => row.batched?.t.toFixed(3) ?? ''),
  right('S t/s', (row) => row.batched?.speed.toFixed(2) ?? ''),
  ...COST,
]

/** `pp512`, `tg128 @ d4096`. */
export function testName(row: Pick<BenchRow, 'n_prompt' | 'n_gen' | 'n_depth'>): string {
  const parts = [row.n_prompt > 0 ? `pp${row.n_prompt}` : '', row.n_gen > 0 ? `tg${row.n_gen}` : ''].filter(Boolean)
  return parts.join('+') + (row.n_depth > 0 ? ` @ d${row.n_depth}` : '')
}

function formatTable(rows: readonly BenchRow[], all: readonly Column[]): string {
  const columns = all.filter(({ wanted }) => wanted === undefined || rows.some(wanted))
  return markdownTable(
    columns,
    rows.map((row) => columns.map(({ cell }) => cell(row))),
  )
}

/** The row with llama-batched-bench's keys beside llama-bench's, as that program writes them. */
function flat({ batched, ...row }: BenchRow): Record<string, unknown> {
  return { ...row, ...batched }
}

/** A column per key; lists are joined by spaces. */
export function toCsv(records: readonly object[]): string {
  const keys = [...new Set(records.flatMap((record) => Object.keys(record)))]
  const quote = (text: string): string => `"${text.replaceAll('"', '""')}"`
  const field = (value: unknown): string => quote(Array.isArray(value) ? value.join(' ') : String(value ?? ''))
  return `${[keys.join(','), ...records.map((record) => keys.map((key) => field(record[key as keyof typeof record])).join(','))].join('\n')}\n`
}
