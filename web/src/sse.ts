/**
 * Server-sent events (WHATWG HTML, section 9.2) as far as a chat needs them: the payload of each event's `data:` lines.
 * Comments and the other fields are skipped; an event that the end of the stream cuts off is dropped, as the standard says.
 */

/** A `\r` at the very end waits for the next chunk: it may be half of `\r\n`. */
const LINE_END = /\r\n|\n|\r(?!$)/

/** A parser for one stream: feed it text as it comes, split anywhere, and it gives back the events that became complete. */
export function sseParser(): (text: string) => string[] {
  let rest = ''
  let data: string[] = []
  return (text) => {
    const events: string[] = []
    rest += text
    for (let end = LINE_END.exec(rest); end; end = LINE_END.exec(rest)) {
      const line = rest.slice(0, end.index)
      rest = rest.slice(end.index + end[0].length)
      if (line === '') {
        if (data.length > 0) events.push(data.join('\n'))
        data = []
      } else if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5))
      else if (line === 'data') data.push('')
    }
    return events
  }
}

/** The events of a response body. Leaving the loop cancels the stream, which closes the connection. */
export async function* sseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  const parse = sseParser()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield* parse(decoder.decode(value, { stream: true }))
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}
