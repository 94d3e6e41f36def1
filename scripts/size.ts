/** Lines per folder, with the median and the longest file: a budget to look at on every change. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

const FOLDERS = ['src', 'web', 'test', 'scripts', 'examples']
const CODE = /\.(ts|tsx|js|css)$/

const byFolder = new Map<string, { path: string; lines: number }[]>()
for (const top of FOLDERS) {
  for (const path of readdirSync(top, { recursive: true, encoding: 'utf8' }).filter((file) => CODE.test(file))) {
    const folder = join(top, path.includes('/') ? path.split('/')[0]! : '')
    const lines = readFileSync(join(top, path), 'utf8').split('\n').length - 1
    byFolder.set(folder, [...(byFolder.get(folder) ?? []), { path, lines }])
  }
}

const rows = [...byFolder].map(([folder, files]) => {
  const sorted = files.toSorted((a, b) => a.lines - b.lines)
  const total = files.reduce((sum, { lines }) => sum + lines, 0)
  const longest = sorted.at(-1)!
  return {
    folder,
    files: files.length,
    lines: total,
    median: sorted[sorted.length >> 1]!.lines,
    longest: `${longest.lines} ${longest.path}`,
  }
})
console.table(rows)
console.log(`${rows.reduce((sum, { lines }) => sum + lines, 0)} lines in all`)
