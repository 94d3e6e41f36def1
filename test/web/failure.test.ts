import { describe, expect, it } from 'vitest'
import { BrokenStream, failureOf, ServerError } from '../../web/src/failure.ts'

describe('what the page says when something fails', () => {
  it('says by how many tokens a prompt is too long', () => {
    const fields = { type: 'exceed_context_size_error', n_prompt_tokens: 5104, n_ctx: 4096 }
    expect(failureOf(new ServerError(400, fields)).text).toMatch(
      /^Too long by 1,008\stokens: the prompt has 5,104, the context holds 4,096/,
    )
  })

  it('counts a prompt that leaves no room for an answer as one token too long', () => {
    const fields = { type: 'exceed_context_size_error', n_prompt_tokens: 4096, n_ctx: 4096 }
    expect(failureOf(new ServerError(400, fields)).text).toMatch(/^Too long by 1\stoken:/)
  })

  it.each([
    [
      'a loading server passes by itself',
      new ServerError(503, { message: 'the model is still loading' }),
      'busy',
      'The model is still loading.',
    ],
    ['a key is asked for', new ServerError(401, {}), 'locked', 'The server asks for an API key.'],
    ['a stop is no failure', new DOMException('', 'AbortError'), 'stopped', 'Stopped.'],
    ['a lost connection', new BrokenStream(), 'gone', 'The connection was lost'],
    ['a server that is gone', new TypeError('Failed to fetch'), 'gone', 'The server cannot be reached.'],
    ['any other error in its own words', new ServerError(400, { message: 'top_p: too big' }), 'other', 'Top_p: too big.'],
    ['an error without words', new ServerError(502, {}), 'other', 'The server answered with status 502.'],
  ])('%s', (_, error, kind, begin) => {
    const failure = failureOf(error)
    expect(failure.kind).toBe(kind)
    expect(failure.text.startsWith(begin)).toBe(true)
  })
})
