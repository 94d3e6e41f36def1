import { expect, test } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import type { Completion, GenerateOptions } from '../../src/engine/generate-options.ts'
import { Chat } from '../../src/engine/chat-session.ts'

/** A model that answers with the words of the last message, and says what it was asked. */
function echo() {
  const asked: GenerateOptions[] = []
  async function* generate(options: GenerateOptions) {
    asked.push(options)
    const words = options.messages!.at(-1)!.content.split(' ')
    if (words[0] === 'fail') throw new KvasirError('closed')
    for (const text of words) {
      await Promise.resolve()
      yield { text, token: 1, logprob: null }
    }
    return { text: words.join('') } as Completion
  }
  return { asked, generate }
}

async function readAll(answer: AsyncIterable<{ text: string }>): Promise<string> {
  let text = ''
  for await (const piece of answer) text += piece.text
  return text
}

test('what was said is said again with the next message', async () => {
  const { asked, generate } = echo()
  const chat = new Chat(generate, { system: 'short', temperature: 0 })
  await readAll(chat.send('a b'))
  await readAll(chat.send('c', { temperature: 1 }))
  expect(asked[1]!.messages).toEqual([
    { role: 'system', content: 'short' },
    { role: 'user', content: 'a b' },
    { role: 'assistant', content: 'ab' },
    { role: 'user', content: 'c' },
  ])
  expect(asked.map(({ temperature }) => temperature)).toEqual([0, 1])
})

test('an answer that is left stays as far as it came', async () => {
  const chat = new Chat(echo().generate)
  for await (const { text } of chat.send('a b c')) if (text === 'b') break
  expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: 'ab' })
  expect(await readAll(chat.send('d'))).toBe('d')
})

test('a message that fails leaves no trace', async () => {
  const chat = new Chat(echo().generate)
  await readAll(chat.send('a'))
  const before = chat.messages
  await expect(readAll(chat.send('fail'))).rejects.toThrow(KvasirError)
  expect(chat.messages).toEqual(before)
  expect(await readAll(chat.send('b'))).toBe('b')
})

test('two answers at once are refused', async () => {
  const chat = new Chat(echo().generate)
  const first = chat.send('a b')
  await first.next()
  await expect(chat.send('c').next()).rejects.toThrow('still being written')
  await readAll(first)
  expect(chat.messages).toHaveLength(2)
})

test('the system message can change, and clear forgets the rest', async () => {
  const chat = new Chat(echo().generate, { system: 'one' })
  await readAll(chat.send('a'))
  chat.system = 'two'
  chat.clear()
  expect(chat.messages).toEqual([{ role: 'system', content: 'two' }])
})
