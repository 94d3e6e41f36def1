/** POST /tokenize, /detokenize and /apply-template, as llama.cpp has them. */
import { isUtf8 } from 'node:buffer'
import { readBody } from './body.ts'
import type { AppContext } from './context.ts'
import { invalid } from './error-body.ts'
import { detokenizeSchema, templateSchema, tokenizeSchema } from './schema.ts'

/** Tokens with their pieces in one reply, which is built in memory. */
const MAX_PIECES = 1_000_000

export async function tokenize(c: AppContext): Promise<Response> {
  const { tokenizer } = c.var.engine
  const body = await readBody(c, tokenizeSchema)
  const ids = tokenizer.encode(body.content, { addSpecial: body.add_special, parseSpecial: body.parse_special })
  if (!body.with_pieces) return c.body(`{"tokens":[${ids.join()}]}`, 200, { 'content-type': 'application/json' })
  if (ids.length > MAX_PIECES)
    throw invalid('with_pieces', `has ${ids.length} tokens, more than ${MAX_PIECES}; send less at once`)
  const tokens = Array.from(ids, (id) => {
    const bytes = Buffer.from(tokenizer.piece(id, true))
    return { id, piece: isUtf8(bytes) ? bytes.toString('utf8') : [...bytes] }
  })
  return c.json({ tokens })
}

export async function detokenize(c: AppContext): Promise<Response> {
  const { tokenizer } = c.var.engine
  const { tokens } = await readBody(c, detokenizeSchema)
  const foreign = tokens.find((token) => token >= tokenizer.nVocab)
  if (foreign !== undefined) throw invalid('tokens', `${foreign} is not in the vocabulary of ${tokenizer.nVocab}`)
  return c.json({ content: tokenizer.decode(tokens, true) })
}

export async function applyTemplate(c: AppContext): Promise<Response> {
  const { messages } = await readBody(c, templateSchema)
  return c.json({ prompt: c.var.engine.template.render(messages, { addGenerationPrompt: true }) })
}
