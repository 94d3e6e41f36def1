import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { KvasirError } from '../../src/core/errors.ts'
import { setLogSink } from '../../src/core/log.ts'
import { ChatTemplate } from '../../src/text/chat-template.ts'
import { CASES, CONVERSATION, REFUSALS } from './templates.ts'

const now = () => new Date(2024, 2, 5, 9, 7)
const templateOf = (source: string | null, knowsChatml = false) =>
  new ChatTemplate({ source, bos: '<s>', eos: '</s>', knowsChatml, now })

describe('a template', () => {
  test.each(CASES)('like that of $name', ({ source, messages, expected, prompt }) => {
    const template = templateOf(source)
    expect(template.source).toBe(source)
    expect(template.stop).toEqual([])
    expect(template.render(messages, { addGenerationPrompt: false })).toBe(expected)
    expect(template.render(messages, { addGenerationPrompt: true })).toBe(expected + prompt)
    expect(template.render(messages)).toBe(expected + prompt)
  })

  test.each(REFUSALS)('refuses $name', ({ source, messages, reason }) => {
    try {
      templateOf(source).render(messages)
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(KvasirError)
      expect(error).toMatchObject({ code: 'chat_template_failed', fields: { reason: expect.stringContaining(reason) as string } })
      expect((error as Error).message).not.toContain('\n')
    }
  })

  test.each([
    ['trims the line of a block and the newline after it', 'a\n  {% if true %}\nb\n  {% endif %}\nc', 'a\nb\nc'],
    ['keeps spaces around values', 'a \n {{ "b" }} \n', 'a \n b '],
    ['drops one newline at the end', 'a\n\n', 'a\n'],
    ['trims where a minus stands', 'a\n {%- if true -%} \n b {%- endif %}', 'ab'],
    ['has ranges', '{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}', '01253'],
    ['knows no tools and documents', '{{ tools is none }}{{ documents is none }}{{ tools is defined }}', 'truetruetrue'],
    [
      'has the time',
      '{{ strftime_now("%Y-%m-%d %H:%M %B %A %e %I%p %y %% %q") }}',
      '2024-03-05 09:07 March Tuesday  5 09AM 24 % %q',
    ],
  ])('%s', (_, source, expected) => {
    expect(templateOf(source).render([])).toBe(expected)
  })

  test('does not see other fields of a message, and cannot change it', () => {
    const message = { role: 'user', content: 'a', secret: 'b' }
    expect(templateOf('{{ messages[0].secret }}|{{ messages[0] | tojson }}').render([message])).toBe(
      '|{"role": "user", "content": "a"}',
    )
  })
})

describe('without a template that can be read', () => {
  let lines: string[] = []
  let before: (line: string) => void
  beforeEach(() => {
    lines = []
    before = setLogSink((line) => lines.push(line))
  })
  afterEach(() => {
    setLogSink(before)
  })

  const DEEP = `{{ ${'('.repeat(100_000)}1${')'.repeat(100_000)} }}`

  test.each([
    ['no template', null, /has no chat template/],
    ['an unfinished one', '{% for m in messages %}', /cannot be read \(.+\)/],
    ['an unknown tag', '{% teleport %}', /cannot be read \(.+\)/],
    ['one that is too deep', DEEP, /cannot be read \(.+\)/],
  ])('%s: messages are a dialogue, and that is said once', (_, source, warning) => {
    const template = templateOf(source)
    expect(lines).toEqual([])
    const expected = "Be brief.\n\nUser:  Hi! \n\nAssistant: Hello.\nUser: What's {{ 1 + 1 }}?\n"
    expect(template.source).toBe(null)
    expect(template.render(CONVERSATION, { addGenerationPrompt: false })).toBe(expected)
    expect(template.render(CONVERSATION)).toBe(`${expected}Assistant:`)
    expect(template.stop).toEqual(['\nUser:'])
    expect(lines).toEqual([expect.stringMatching(warning)])
    expect(lines[0]).toMatch(/^warn: .*writing messages as "User: …"$/)
  })

  test('a vocabulary with the tokens of ChatML gets ChatML', () => {
    const template = templateOf(null, true)
    expect(template.render(CONVERSATION.slice(0, 1))).toBe('<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>assistant\n')
    expect(template.stop).toEqual([])
    expect(lines).toHaveLength(1)
  })
})
