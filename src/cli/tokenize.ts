/** `kvasir tokenize`: how a text becomes tokens. Loads the vocabulary only. */
import { z } from 'zod'
import { bundledModel } from '../engine/model.ts'
import { loadTokenizer } from '../text/load.ts'
import { openWeights } from '../weights/open.ts'
import { define } from './command.ts'
import { joinPrompt, readText } from './input.ts'
import { MODEL_OPTION } from './model-options.ts'
import { usage } from './options.ts'

export const tokenize = define({
  name: 'tokenize',
  arguments: '',
  about: 'show how a text becomes tokens',
  examples: ['kvasir tokenize -p "Hello, world"', 'kvasir tokenize -m model.gguf -f notes.txt --show-count --ids'],
  options: {
    ...MODEL_OPTION,
    prompt: { short: 'p', hint: 'TEXT', about: 'the text', schema: z.string().optional() },
    file: { short: 'f', hint: 'FILE', about: 'a file with the text; - is stdin', schema: z.string().optional() },
    ids: { about: 'print the ids only, as one JSON array', schema: z.boolean().default(false) },
    json: { about: 'print one JSON object: tokens (ids), pieces (texts), count', schema: z.boolean().default(false) },
    'show-count': { about: 'print the number of tokens last', schema: z.boolean().default(false) },
    bos: { about: 'do not add the tokens that the vocabulary puts around a text', schema: z.boolean().default(true) },
    'parse-special': { about: 'read names of special tokens as plain text', schema: z.boolean().default(true) },
  },
  async run(values) {
    const file = values.file ?? (values.prompt === undefined && !process.stdin.isTTY ? '-' : undefined)
    const text = joinPrompt(file === undefined ? undefined : await readText(file), values.prompt)
    if (text === undefined) throw usage('give a text with -p, or a file with -f')

    using source = openWeights(values.model ?? bundledModel())
    using tokenizer = loadTokenizer(source)
    const tokens = [...tokenizer.encode(text, { addSpecial: values.bos, parseSpecial: values.parseSpecial })]
    const pieces = tokens.map((token) => tokenizer.text(token))
    const lines = values.json
      ? [JSON.stringify({ tokens, pieces, count: tokens.length })]
      : values.ids
        ? [JSON.stringify(tokens)]
        : tokens.map((token, i) => `${String(token).padStart(6)}  ${JSON.stringify(pieces[i])}`)
    if (values.showCount && !values.json) lines.push(`${tokens.length} tokens`)
    process.stdout.write(`${lines.join('\n')}\n`)
  },
})
