import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sseEvents, sseParser } from '../../web/src/sse.ts'

function bodyOf(chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  const left = [...chunks]
  return new ReadableStream({
    pull(controller) {
      const chunk = left.shift()
      if (chunk) controller.enqueue(chunk)
      else controller.close()
    },
  })
}

async function collect(body: ReadableStream<Uint8Array>): Promise<string[]> {
  const events: string[] = []
  for await (const event of sseEvents(body)) events.push(event)
  return events
}

describe('the parser of server-sent events', () => {
  it.each([
    ['one event', 'data: {"a":1}\n\n', ['{"a":1}']],
    ['two events', 'data: 1\n\ndata: 2\n\n', ['1', '2']],
    ['no space behind the colon', 'data:1\n\n', ['1']],
    ['only one space is dropped', 'data:  1\n\n', [' 1']],
    ['lines of one event are joined', 'data: 1\ndata: 2\n\n', ['1\n2']],
    ['an empty line of data', 'data\n\n', ['']],
    ['CRLF', 'data: 1\r\n\r\ndata: 2\r\n\r\n', ['1', '2']],
    ['CR', 'data: 1\r\rdata: 2\r\r\n', ['1', '2']],
    ['comments between events', ': ping\n\ndata: 1\n\n: ping\n\n', ['1']],
    ['a comment within an event', 'data: 1\n: ping\ndata: 2\n\n', ['1\n2']],
    ['other fields', 'event: x\nid: 7\nretry: 10\ndata: 1\n\n', ['1']],
    ['a field whose name begins alike', 'database: 1\n\n', []],
    ['an event that is cut off', 'data: 1\n\ndata: 2\n', ['1']],
    ['nothing', '', []],
  ])('%s', (_, text, events) => {
    expect(sseParser()(text)).toEqual(events)
  })

  it('gives an event as soon as its blank line is there', () => {
    const parse = sseParser()
    expect([parse('da'), parse('ta: 1\n'), parse('\n')]).toEqual([[], [], ['1']])
  })

  it('reads the same events wherever the bytes are split', async () => {
    const text = ': ping\r\n\r\ndata: {"text":"Größe 日本 🦦"}\r\n\r\ndata: 1\rdata: 2\r\rdata: [DONE]\n\n'
    const bytes = new TextEncoder().encode(text)
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: bytes.length - 1 })).map((places) => places.toSorted((a, b) => a - b))
    await fc.assert(
      fc.asyncProperty(cuts, async (places) => {
        const edges = [0, ...places, bytes.length]
        const chunks = places.concat(bytes.length).map((end, index) => bytes.slice(edges[index]!, end))
        expect(await collect(bodyOf(chunks))).toEqual(['{"text":"Größe 日本 🦦"}', '1\n2', '[DONE]'])
      }),
    )
  })

  it('closes the connection when the reader leaves', async () => {
    let isClosed = false
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(new TextEncoder().encode('data: 1\n\n')),
      cancel: () => void (isClosed = true),
    })
    for await (const event of sseEvents(body)) if (event === '1') break
    expect(isClosed).toBe(true)
  })
})
