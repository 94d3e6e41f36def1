/** Texts for the model to read: pasted, chosen or dropped. */
import { effect, signal } from '@preact/signals'
import { countTokens } from './api.ts'
import { apiKey, type Attachment, attachments, notice, server } from './state.ts'

/** Some three million tokens: more than a context holds. */
const BYTES_MAX = 10 * 1024 * 1024

let nextId = 1

export function attachText(name: string, text: string): void {
  const attachment: Attachment = { id: nextId++, name, text, bytes: new Blob([text]).size, tokens: signal(null) }
  attachments.value = [...attachments.value, attachment]
  // Counted once, as soon as there is a server to ask.
  const stop = effect(() => {
    if (server.value.kind !== 'ready') return
    countTokens(text, { key: apiKey.peek() }).then(
      (value) => (attachment.tokens.value = value),
      () => {},
    )
    queueMicrotask(() => stop())
  })
}

export function detach(attachment: Attachment): void {
  attachments.value = attachments.value.filter((other) => other !== attachment)
}

export async function attachFiles(files: Iterable<File>): Promise<void> {
  for (const file of files) {
    const text = file.size <= BYTES_MAX ? await textOf(file) : null
    if (text !== null && text.trim() !== '') attachText(file.name, text)
    else notice.value = { kind: 'other', text: `${file.name} was not added: ${refusal(file, text)}.` }
  }
}

/** Null for a file that is not text: it holds a zero byte, or bytes that are not UTF-8. */
async function textOf(file: File): Promise<string | null> {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer())
    return text.includes('\0') ? null : text
  } catch {
    return null
  }
}

function refusal(file: File, text: string | null): string {
  if (file.size > BYTES_MAX) return 'it is larger than 10 MiB'
  return text === null ? 'it is not a text file (UTF-8)' : 'it is empty'
}
