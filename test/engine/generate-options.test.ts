import { canonicalSpec } from '../../src/attention/spec.ts'
import type { AttentionSetting } from '../../src/core/request.ts'
import { describe, expect, test } from 'vitest'
import { type GenerateOptions, toRequest } from '../../src/engine/generate-options.ts'
import type { ChatMessage, ChatTemplate } from '../../src/text/chat-template.ts'
import type { EncodeOptions, Tokenizer } from '../../src/text/tokenizer.ts'

const BOS = 1
/** One token per character; a `^` in a text names BOS, which is also put in front. */
function texts({ addBos = false } = {}) {
  const encode = (text: string, { addSpecial = true }: EncodeOptions = {}) => {
    const ids = [...text].map((char) => (char === '^' ? BOS : char.codePointAt(0)!))
    return Int32Array.from(addSpecial && addBos ? [BOS, ...ids] : ids)
  }
  const render = (messages: readonly ChatMessage[]) => messages.map(({ role, content }) => `^${role[0]}:${content}`).join('')
  return {
    tokenizer: { nVocab: 256, bos: BOS, addBos, encode } as unknown as Tokenizer,
    template: { render, stop: ['User:'] } as unknown as ChatTemplate,
    bind: (setting: AttentionSetting) => ({ spec: canonicalSpec(setting), mostSeen: (nCtx: number) => nCtx }),
  }
}
const ids = (text: string) => [...text].map((char) => (char === '^' ? BOS : char.codePointAt(0)!))

describe('the prompt', () => {
  test('text is taken as it is', () => {
    expect([...toRequest(texts(), { prompt: 'ab' }).prompt]).toEqual(ids('ab'))
  })

  test('token ids are taken as they are', () => {
    expect([...toRequest(texts({ addBos: true }), { prompt: [5, 6] }).prompt]).toEqual([5, 6])
  })

  test('messages go through the template, and a BOS that both write is there once', () => {
    const messages = [{ role: 'user', content: 'a' }]
    expect([...toRequest(texts(), { messages }).prompt]).toEqual(ids('^u:a'))
    expect([...toRequest(texts({ addBos: true }), { messages }).prompt]).toEqual(ids('^u:a'))
  })
})

test('a plain template ends its answers by a text', () => {
  expect(toRequest(texts(), { messages: [{ role: 'user', content: 'a' }], stop: 'x' }).stop).toEqual(['x', 'User:'])
})

test('what is left out has the defaults of the server', () => {
  expect(toRequest(texts(), { prompt: 'a' })).toMatchObject({
    maxTokens: -1,
    stop: [],
    topLogprobs: -1,
    ignoreEos: false,
    sampling: { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1, seed: -1, logit_bias: {} },
  })
})

test('options reach the engine under its names', () => {
  const options = { prompt: 'a', maxTokens: 3, stop: 'x', topK: 7, repeatLastN: -1, logprobs: 2, nCtx: 64 }
  expect(toRequest(texts(), options)).toMatchObject({
    maxTokens: 3,
    stop: ['x'],
    topLogprobs: 2,
    nCtx: 64,
    sampling: { top_k: 7, repeat_last_n: -1 },
  })
})

test.each([
  [undefined, undefined],
  ['streaming:sink=4,window=64', 'streaming:window=64'],
  [{ method: 'streaming', window: 64 }, 'streaming:window=64'],
  [['dense', { method: 'streaming' }], 'streaming'],
])('attention %j is %s', (attention, expected) => {
  expect(toRequest(texts(), { prompt: 'a', attention }).attention?.spec).toBe(expected)
})

test('an attention that does not exist is refused', () => {
  expect(() => toRequest(texts(), { prompt: 'a', attention: 'oracle' })).toThrow(
    expect.objectContaining({ code: 'attention_invalid', message: expect.stringContaining("unknown method 'oracle'") }),
  )
})

test.each<[GenerateOptions, string]>([
  [{}, "give one of 'prompt' and 'messages'"],
  [{ prompt: 'a', messages: [{ role: 'user', content: 'a' }] }, "give one of 'prompt' and 'messages'"],
  [{ prompt: '' }, 'the prompt is empty'],
  [{ messages: [] }, "'messages' is empty"],
  [{ prompt: [3, 256] }, 'the prompt holds 256, which is no token (0 to 255)'],
  [{ prompt: [3, -1] }, 'the prompt holds -1'],
  [{ prompt: 'a', maxTokens: -5 }, 'maxTokens must be a whole number, -1 or more'],
  [{ prompt: 'a', maxTokens: 1.5 }, 'maxTokens must be a whole number'],
  [{ prompt: 'a', logprobs: 21 }, 'logprobs must be a whole number, 0 or more, 20 or less'],
  [{ prompt: 'a', stop: ['x', ''] }, "'stop' holds an empty string"],
  [{ prompt: 'a', temperature: -1 }, 'temperature: '],
  [{ prompt: 'a', topP: 2 }, 'topP: '],
  [{ prompt: 'a', temprature: 0 } as GenerateOptions, "unknown option 'temprature'"],
])('%j is refused: %s', (options, message) => {
  expect(() => toRequest(texts(), options)).toThrow(
    expect.objectContaining({ code: 'invalid_request', message: expect.stringContaining(message) }),
  )
})
