/** The table in which agreement with libllama is printed, as markdown. */
import type { Agreement } from '../test/support/reference.ts'

export function printHead(): void {
  console.log('| model | type | read by | positions | same top-1 | mean Δ log p | largest |\n|---|---|---|--:|--:|--:|--:|')
}

export function printRow(model: string, type: string, how: string, { positions, top1, meanDelta, maxDelta }: Agreement): void {
  const cells = [model, type, how, positions, `${(100 * top1).toFixed(2)} %`, meanDelta.toFixed(5), maxDelta.toFixed(4)]
  console.log(`| ${cells.join(' | ')} |`)
}
