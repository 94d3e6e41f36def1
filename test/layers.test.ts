import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

/** Bottom to top; folders of one row are strangers to each other. src/index.ts only re-exports and is exempt. */
const ROWS = [
  ['core'],
  ['ggml'],
  ['weights'],
  ['nn'],
  ['kv'],
  ['attention'],
  ['models', 'text'],
  ['engine'],
  ['server', 'bench', 'train'],
  ['cli'],
]
const rowOf = (folder: string) => ROWS.findIndex((row) => row.includes(folder))
const folderOf = (path: string) => relative(SRC, path).split(/[\\/]/)[0]!

/** Relative paths that a source imports or re-exports: statically, dynamically, for types or for side effects. */
function importsOf(source: string): string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  return [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*['"](\.[^'"]+)['"]/g)].map((match) => match[1]!)
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.includes('/') && path.endsWith('.ts'))

test('a file imports only from its own folder and from lower rows', () => {
  const wrong: string[] = []
  for (const file of files) {
    const from = folderOf(join(SRC, file))
    for (const path of importsOf(readFileSync(join(SRC, file), 'utf8'))) {
      const to = folderOf(join(SRC, dirname(file), path))
      if (to !== from && !(rowOf(to) >= 0 && rowOf(to) < rowOf(from))) wrong.push(`${file} imports ${path}`)
    }
  }
  expect(wrong).toEqual([])
})

/** The rooms of attention: axes are strangers to each other, and kernels serve them all. */
const ROOMS = ['share', 'keep', 'read', 'kernels']
const roomOf = (path: string) => ROOMS.find((room) => path.startsWith(`attention/${room}/`))
const mayImport = (from: string | undefined, to: string | undefined) =>
  from === undefined || to === undefined || from === to || (to === 'kernels' && from !== 'kernels')

test('the rooms of attention keep to themselves', () => {
  const wrong: string[] = []
  for (const file of files) {
    for (const path of importsOf(readFileSync(join(SRC, file), 'utf8'))) {
      const to = posix.join(dirname(file), path)
      if (!mayImport(roomOf(file), roomOf(to))) wrong.push(`${file} imports ${path}`)
    }
  }
  expect(wrong).toEqual([])
  expect([mayImport('keep', 'kernels'), mayImport('kernels', 'keep'), mayImport('read', 'keep')]).toEqual([true, false, false])
})

/** Ways that lead from a file through what it imports back to it. */
function cyclesOf(imports: ReadonlyMap<string, readonly string[]>): string[] {
  const cycles: string[] = []
  const done = new Set<string>()
  const visit = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) cycles.push([...way.slice(way.indexOf(file)), file].join(' → '))
    if (way.includes(file) || done.has(file)) return
    for (const next of imports.get(file) ?? []) visit(next, [...way, file])
    done.add(file)
  }
  for (const file of imports.keys()) visit(file, [])
  return cycles
}

test('no file imports itself, by way of others neither', () => {
  const importsIn = (file: string) =>
    importsOf(readFileSync(join(SRC, file), 'utf8')).map((path) => posix.join(dirname(file), path))
  expect(cyclesOf(new Map(files.map((file) => [file, importsIn(file)])))).toEqual([])
})

test.each([
  [{ a: ['b'], b: ['c'], c: [] }, []],
  [{ a: ['b', 'c'], b: ['c'], c: ['b'] }, ['b → c → b']],
  [{ a: ['b'], b: ['c', 'd'], c: ['a'], d: ['d'] }, ['a → b → c → a', 'd → d']],
])('it sees the cycles of %j', (imports, expected) => {
  expect(cyclesOf(new Map(Object.entries(imports)))).toEqual(expected)
})

test('every folder of src has its row', () => {
  expect([...new Set(files.map((file) => folderOf(join(SRC, file))))].filter((folder) => rowOf(folder) < 0)).toEqual([])
})

test.each([
  ["import type { A } from '../b/a.ts'", ['../b/a.ts']],
  ["import {\n  a,\n} from '../b/a.ts'", ['../b/a.ts']],
  ["const a = await import('../b/a.ts')", ['../b/a.ts']],
  ["type A = import('../b/a.ts').A", ['../b/a.ts']],
  ["import '../b/a.ts'", ['../b/a.ts']],
  ["export { a } from '../b/a.ts'", ['../b/a.ts']],
  ["export * from '../b/a.ts'", ['../b/a.ts']],
  ["// import '../b/a.ts'\n/* from '../b/c.ts' */ import z from 'zod'", []],
])('it sees %j', (source, expected) => {
  expect(importsOf(source)).toEqual(expected)
})
