/** Tables in Markdown whose columns stand below each other. */

export interface TableColumn {
  readonly title: string
  readonly align: 'left' | 'right'
}

/** Ends with a line break. */
export function markdownTable(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }, i) => Math.max(title.length, 3, ...rows.map((cells) => cells[i]!.length)))
  const line = (texts: readonly string[]): string =>
    `| ${texts.map((text, i) => (columns[i]!.align === 'left' ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join(' | ')} |`
  const rule = columns.map(({ align }, i) => '-'.repeat(widths[i]! - 1) + (align === 'left' ? '-' : ':'))
  return `${[line(columns.map(({ title }) => title)), line(rule), ...rows.map(line)].join('\n')}\n`
}
