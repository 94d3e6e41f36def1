import { execFile } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TSX = join(ROOT, 'node_modules', 'tsx', 'dist', 'cli.mjs')

/** What each example is known to say with the bundled model; all are greedy. */
const SAYS: Record<string, string[]> = {
  '01-generate.ts': ['Nora keeps the lamp in the dusty attic.', 'tokens/s'],
  '02-chat.ts': ['The access code for the calm otter is 40412.', 'exceed_context_size_error', '6 messages in the history'],
  '03-server-client.ts': ['Omar keeps the coin in the old barn.', 'tokens read'],
  '04-long-document.ts': ['is 40412. (stop)', 'dusty attic. (stop)', 'KiB'],
  '05-attention.ts': ['dense: The access code for the calm otter is 40412.', 'streaming:window=128: ', 'dropped: '],
}

describe('examples', () => {
  test('each is listed here and has fewer than 35 lines', () => {
    const files = readdirSync(join(ROOT, 'examples'))
    expect(files).toEqual(Object.keys(SAYS))
    const lines = files.map((file) => readFileSync(join(ROOT, 'examples', file), 'utf8').split('\n').length - 1)
    expect(Math.max(...lines)).toBeLessThan(35)
  })

  test.each(Object.entries(SAYS))('%s runs', async (file, says) => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [TSX, join('examples', file)], { cwd: ROOT })
    expect(stderr).toBe('')
    for (const text of says) expect(stdout).toContain(text)
  })
})
