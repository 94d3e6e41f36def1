/** What can go wrong between the page and the server, and the words for it. */
import { count, tokens } from './numbers.ts'

/** An error object of the server, from a reply or from within a stream. */
export class ServerError extends Error {
  readonly status: number
  readonly type: string
  readonly fields: Readonly<Record<string, unknown>>

  constructor(status: number, fields: Readonly<Record<string, unknown>>) {
    super(typeof fields.message === 'string' ? fields.message : `the server answered with status ${status}`)
    this.status = status
    this.type = typeof fields.type === 'string' ? fields.type : 'unknown'
    this.fields = fields
  }
}

/** The connection ended before the answer did. */
export class BrokenStream extends Error {}

export interface Failure {
  /** `locked` asks for a key, `gone` is a lost server, `busy` passes by itself, `stopped` was the reader's own wish. */
  readonly kind: 'locked' | 'gone' | 'busy' | 'stopped' | 'other'
  readonly text: string
}

export function failureOf(error: unknown): Failure {
  if (error instanceof DOMException && error.name === 'AbortError') return { kind: 'stopped', text: 'Stopped.' }
  if (error instanceof BrokenStream) return { kind: 'gone', text: 'The connection was lost before the answer was complete.' }
  if (!(error instanceof ServerError))
    return { kind: 'gone', text: 'The server cannot be reached. Is it still running? Your question is kept.' }
  if (error.status === 401) return { kind: 'locked', text: 'The server asks for an API key. Enter it in the settings.' }
  if (error.status === 503) return { kind: 'busy', text: sentence(error.message) }
  const { n_prompt_tokens: prompt, n_ctx: context } = error.fields
  if (error.type === 'exceed_context_size_error' && typeof prompt === 'number' && typeof context === 'number')
    return { kind: 'other', text: tooLong(prompt, context) }
  return { kind: 'other', text: sentence(error.message) }
}

function tooLong(prompt: number, context: number): string {
  const over = Math.max(1, prompt - context)
  return (
    `Too long by ${tokens(over)}: the prompt has ${count(prompt)}, the context holds ${count(context)}. ` +
    'Shorten the text, start a new chat, or start the server with a larger context (-c).'
  )
}

function sentence(message: string): string {
  const text = message.charAt(0).toUpperCase() + message.slice(1)
  return /[.!?]$/.test(text) ? text : `${text}.`
}
