/** Text that commands take from options, files and stdin. */
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { KvasirError, reasonOf } from '../core/errors.ts'

/** A file's text, `-` for stdin. */
export async function readText(path: string): Promise<string> {
  if (path === '-') return text(process.stdin)
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new KvasirError('file_error', { action: 'read', path, reason: reasonOf(error) }, { cause: error })
  }
}

/** A file's text, then the prompt, with one line break between; or the one that is there. */
export function joinPrompt(file: string | undefined, prompt: string | undefined): string | undefined {
  if (file === undefined || prompt === undefined) return file ?? prompt
  return `${file.replace(/\r?\n$/, '')}\n${prompt}`
}
