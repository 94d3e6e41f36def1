/** The library, with the bundled model. */
import { afterAll, describe, expect, test } from 'vitest'
import type { Completion, Piece } from '../../src/engine/generate-options.ts'
import { load } from '../../src/engine/model.ts'

const FACT = 'The access code for the calm otter is 40412.'
const MESSAGES = [{ role: 'user', content: `${FACT}\nWhat is the access code for the calm otter?` }]

async function readAll(answer: AsyncGenerator<Piece, Completion>): Promise<{ pieces: Piece[]; whole: Completion }> {
  const pieces: Piece[] = []
  for (;;) {
    const next = await answer.next()
    if (next.done) return { pieces, whole: next.value }
    pieces.push(next.value)
  }
}

describe('a loaded model', async () => {
  const model = await load(undefined, { nCtx: 512, nThreads: 1 })
  afterAll(() => model.close())

  test('streams what complete gives at once', async () => {
    const options = { messages: MESSAGES, temperature: 0, logprobs: 2 }
    const { pieces, whole } = await readAll(model.generate(options))
    const again = await model.complete(options)
    expect(whole.text).toBe(FACT)
    expect(pieces.map(({ text }) => text).join('')).toBe(whole.text)
    expect(pieces.flatMap(({ token }) => token ?? [])).toEqual(whole.tokens)
    expect(model.detokenize(whole.tokens)).toBe(whole.text)
    expect(again).toMatchObject({ text: whole.text, tokens: whole.tokens, stopReason: 'stop', stoppingWord: null })
    expect(whole.logprobs.map(({ token }) => token)).toEqual(whole.tokens)
    for (const { logprob, top } of whole.logprobs) expect(top[0]!.logprob).toBe(logprob)
  })

  test('counts before asking what usage counts afterwards', async () => {
    const { usage } = await model.complete({ messages: MESSAGES, maxTokens: 1 })
    expect(model.countTokens(MESSAGES)).toBe(usage.prompt_tokens)
    expect(model.countTokens('calm otter')).toBe(model.tokenize('calm otter').length)
  })

  test('stops at a text, which is not part of the answer', async () => {
    const { text, stopReason, stoppingWord } = await model.complete({ messages: MESSAGES, temperature: 0, stop: [' 404', '?'] })
    expect({ text, stopReason, stoppingWord }).toEqual({
      text: 'The access code for the calm otter is',
      stopReason: 'stop',
      stoppingWord: ' 404',
    })
  })

  test('an aborted answer keeps what it has', async () => {
    const abort = new AbortController()
    const answer = model.generate({ prompt: 'The', ignoreEos: true, signal: abort.signal })
    for (let i = 0; i < 3; i++) await answer.next()
    abort.abort()
    const { whole } = await readAll(answer)
    expect(whole.stopReason).toBe('aborted')
    expect(whole.tokens.length).toBeGreaterThanOrEqual(3)
    expect(whole.tokens.length).toBeLessThan(400)
  })

  test('leaving the loop gives the place back', async () => {
    for await (const { token } of model.generate({ prompt: 'The', ignoreEos: true })) if (token !== null) break
    await model.complete({ prompt: 'The', maxTokens: 1 })
    expect(model.engine.stats()).toMatchObject({ requestsRunning: 0, requestsWaiting: 0, kvBytes: 0 })
  })

  test('answers side by side are the answers one by one', async () => {
    const prompts = ['The access', 'When a new', 'Nora keeps', 'Returns the', 'This lint', 'A tuple']
    const options = { temperature: 0, maxTokens: 12, ignoreEos: true }
    const together = await Promise.all(prompts.map((prompt) => model.complete({ prompt, ...options })))
    for (const [i, prompt] of prompts.entries())
      expect(together[i]!.text).toBe((await model.complete({ prompt, ...options })).text)
  })

  test('a prompt that does not fit says by how much', async () => {
    const tooLong = model.generate({ prompt: 'word '.repeat(600) }).next()
    await expect(tooLong).rejects.toMatchObject({ code: 'exceed_context_size_error', fields: { n_ctx: 512 } })
  })

  test('tells how far a prompt is read', async () => {
    const seen: number[] = []
    const prompt = Array.from({ length: 300 }, (_, i) => i)
    await model.complete({ prompt, maxTokens: 1, onProgress: ({ processed, total }) => seen.push(processed / total) })
    expect(seen.at(-1)).toBe(1)
  })

  test('chats with a memory', async () => {
    const chat = model.chat({ temperature: 0 })
    const { whole } = await readAll(chat.send(MESSAGES[0]!.content))
    await readAll(chat.send('Nora keeps the lamp in the dusty attic.\nWhere does Nora keep the lamp?'))
    const { whole: again } = await readAll(chat.send('What is the access code for the calm otter?'))
    expect([whole.text, again.text]).toEqual([FACT, FACT])
  })
})

test('a closed model says so', async () => {
  const model = await load()
  await model.close()
  await model.close()
  await expect(model.complete({ prompt: [1] })).rejects.toMatchObject({ code: 'closed' })
})

test.each([
  [() => load('nowhere.gguf', { attention: 'oracle' }), 'attention_invalid'],
  [() => load(undefined, { attention: { method: 'streaming', window: 0 } }), 'attention_invalid'],
  [() => load('nowhere.gguf'), 'model_not_found'],
  [() => load(undefined, { nCtx: -1 }), 'usage'],
  [() => load(undefined, { signal: AbortSignal.abort() }), 'aborted'],
])('loading fails with a code: %#', async (loading, code) => {
  await expect(loading()).rejects.toMatchObject({ code })
})
