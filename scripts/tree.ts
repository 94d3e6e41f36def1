/** The tree of sources, a line each: the first sentence of a file's first comment. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

/** Bottom to top, as the layers stand. */
const ORDER = ['core', 'ggml', 'weights', 'nn', 'kv', 'attention', 'models', 'text', 'engine', 'server', 'bench', 'train', 'cli']
const WIDTH = 130

export function tree(src: string): string {
  const isFolder = (name: string) => !name.includes('.')
  const folders = readdirSync(src)
    .filter(isFolder)
    .toSorted((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b))
  return [fileLine(join(src, 'index.ts'), 'src/index.ts'), ...folders.flatMap((folder) => folderLines(src, folder))].join('\n')
}

function folderLines(src: string, folder: string): string[] {
  const files = readdirSync(join(src, folder)).filter((file) => file.endsWith('.ts'))
  return [`src/${folder}/`, ...files.map((file) => fileLine(join(src, folder, file), `  ${file}`))]
}

function fileLine(path: string, label: string): string {
  const line = `${label.padEnd(24)} ${firstSentence(readFileSync(path, 'utf8'))}`.trimEnd()
  return line.length > WIDTH ? `${line.slice(0, line.lastIndexOf(' ', WIDTH - 2))} …` : line
}

function firstSentence(code: string): string {
  const comment = /\/\*\*([\s\S]*?)\*\//.exec(code)?.[1] ?? ''
  const text = comment
    .replace(/^\s*\* ?/gm, ' ')
    .replace(/\s+/g, ' ')
    .replace(/\{@link (\w+)\}/g, '$1')
    .trim()
  return /^.*?[.](?=\s|$)/.exec(text)?.[0] ?? text
}
