/** Writes a file so that it is there whole or not at all: under another name first, flushed, then renamed. */
import { randomUUID } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { KvasirError, reasonOf } from './errors.ts'

/** Errors: `file_error`; what was there before is then as it was. */
export async function writeWhole(path: string, data: string | Uint8Array): Promise<void> {
  const partial = `${path}.${randomUUID().slice(0, 8)}.partial`
  let file: FileHandle | undefined
  try {
    file = await open(partial, 'wx')
    await file.writeFile(data)
    await file.sync()
    await file.close()
    await rename(partial, path)
  } catch (error) {
    await file?.close().catch(() => {})
    await rm(partial, { force: true })
    throw new KvasirError('file_error', { action: 'write', path, reason: reasonOf(error) }, { cause: error })
  }
}
