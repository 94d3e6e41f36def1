import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { pages } from '../scripts/docs.ts'

test.each(Object.entries(await pages()))('%s is what `npm run docs` writes', (path, expected) => {
  expect(readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')).toBe(expected)
})

/** Relative links of a page, without those of code blocks. */
function linksOf(text: string): string[] {
  return [...text.replace(/```[\s\S]*?```/g, '').matchAll(/\]\(([^)#]+)[^)]*\)/g)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/.test(link))
}

test.each(['README.md', 'AGENTS.md', 'docs/journey.md'])('the links of %s lead somewhere', (page) => {
  const url = new URL(`../${page}`, import.meta.url)
  const broken = linksOf(readFileSync(url, 'utf8')).filter((link) => !isThere(new URL(link, url)))
  expect(broken).toEqual([])
})

/** Paths like `src/engine/runner.ts` in the text of a page. */
test.each(['README.md', 'AGENTS.md', 'docs/journey.md'])('the files that %s names exist', (page) => {
  const root = new URL('..', import.meta.url)
  const text = readFileSync(new URL(page, root), 'utf8')
  const named = [...text.matchAll(/\b(?:src|web|test|scripts|examples|docs|bin)\/[\w./-]+\.\w+/g)].map((match) => match[0])
  expect(named.filter((path) => !isThere(new URL(path, root)))).toEqual([])
})

function isThere(url: URL): boolean {
  try {
    readFileSync(url)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EISDIR'
  }
}
