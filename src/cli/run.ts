/** `kvasir run`: answers one prompt on stdout. */
import { z } from 'zod'
import { parseCount } from '../core/sizes.ts'
import type { Completion } from '../engine/generate-options.ts'
import { load } from '../engine/model.ts'
import { define } from './command.ts'
import { joinPrompt, readText } from './input.ts'
import { EXIT_INTERRUPTED, onInterrupt } from './interrupt.ts'
import { LOAD_OPTIONS, SAMPLING_OPTIONS, loadOptions, samplingOf } from './model-options.ts'
import { usage } from './options.ts'
import { Progress } from './progress.ts'

export const run = define({
  name: 'run',
  arguments: '',
  about: 'answer one prompt',
  examples: [
    'kvasir run -p "What is the access code for the calm otter?" -f notes.txt',
    'kvasir run -m model.gguf -p "Why is the sky blue?" -n 200 --temp 0 --json',
    'git diff | kvasir run -m model.gguf -f - -p "Describe this change in one sentence."',
  ],
  options: {
    prompt: { short: 'p', hint: 'TEXT', about: 'the prompt: one message of a user', schema: z.string().optional() },
    file: {
      short: 'f',
      hint: 'FILE',
      about: 'text to put before the prompt, or the prompt itself; - is stdin',
      schema: z.string().optional(),
    },
    'system-prompt': { short: 'sys', hint: 'TEXT', about: 'a system message to put before it', schema: z.string().optional() },
    raw: { about: 'take the prompt as it is, without the chat template', schema: z.boolean().default(false) },
    'n-predict': {
      short: 'n',
      hint: 'N',
      about: 'generate at most N tokens; -1 is until the context is full',
      convert: parseCount,
      schema: z.int().min(-1).default(128),
    },
    'ignore-eos': { about: "go on after the model's end token", schema: z.boolean().default(false) },
    json: { about: 'print one JSON object: text, tokens, usage, timings, attention', schema: z.boolean().default(false) },
    ...LOAD_OPTIONS,
    ...SAMPLING_OPTIONS,
  },
  async run(values) {
    const file = values.file ?? (values.prompt === undefined && !process.stdin.isTTY ? '-' : undefined)
    const text = joinPrompt(file === undefined ? undefined : await readText(file), values.prompt)
    if (text === undefined || text === '') throw usage('there is no prompt: give one with -p, or a file with -f')
    if (values.raw && values.systemPrompt !== undefined) throw usage('--raw takes no --system-prompt')
    const system = values.systemPrompt === undefined ? [] : [{ role: 'system', content: values.systemPrompt }]

    using progress = new Progress()
    using interrupt = onInterrupt()
    const { signal } = interrupt
    await using model = await load(values.model, { ...loadOptions(values), nParallel: 1, onProgress: progress.loading, signal })
    progress.clear()
    const pieces = model.generate({
      ...(values.raw ? { prompt: text } : { messages: [...system, { role: 'user', content: text }] }),
      ...samplingOf(values),
      maxTokens: values.nPredict,
      ignoreEos: values.ignoreEos,
      signal,
      onProgress: progress.reading,
    })
    let next = await pieces.next()
    for (; !next.done; next = await pieces.next()) {
      progress.clear()
      if (!values.json) process.stdout.write(next.value.text)
    }
    progress.clear()
    const answer = next.value
    process.stdout.write(values.json ? `${JSON.stringify(toJson(answer))}\n` : '\n')
    if (process.stderr.isTTY) process.stderr.write(`${summary(answer)}\n`)
    if (answer.stopReason === 'aborted') process.exitCode = EXIT_INTERRUPTED
  },
})

function toJson({ text, tokens, usage: used, timings, stopReason, stoppingWord }: Completion) {
  return { text, tokens, stop_reason: stopReason, stopping_word: stoppingWord, usage: used, timings, attention: used.attention }
}

/** `131 tokens read at 2310/s, 24 written at 410/s`, and why it ended if that was not the model's choice. */
export function summary({ timings, stopReason }: Completion): string {
  const read = `${timings.prompt_n} ${timings.prompt_n === 1 ? 'token' : 'tokens'} read at ${Math.round(timings.prompt_per_second)}/s`
  const written = `${timings.predicted_n} written at ${Math.round(timings.predicted_per_second)}/s`
  const why = { stop: '', length: '; ended by its length (-n, -c)', aborted: '; stopped' }[stopReason]
  return `[${read}, ${written}${why}]`
}
