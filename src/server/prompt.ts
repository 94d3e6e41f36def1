/** Messages and prompts → token ids that the engine can take. */
import { setImmediate as yieldToOthers } from 'node:timers/promises'
import { KvasirError } from '../core/errors.ts'
import { encodeMessages, encodePrompt } from '../engine/generate-options.ts'
import type { ChatMessage } from '../text/chat-template.ts'
import type { Prompt } from './schema.ts'
import type { ServedEngine } from './served-engine.ts'

/** Characters above which a text is first counted piece by piece, so that one body does not hold up every stream. */
const LONG_TEXT = 128 * 1024
const PIECE = 32 * 1024
/** Tokens by which a cut in the text may change the count. */
const CUT_TOKENS = 4

function tooLong(n_prompt_tokens: number, nCtx: number): KvasirError {
  return new KvasirError('exceed_context_size_error', { n_prompt_tokens, n_ctx: nCtx })
}

/** Throws `exceed_context_size_error` for a long text that cannot fit; the count in it may be off by a little per cut. */
async function refuseLongText(engine: ServedEngine, text: string, nCtx: number): Promise<void> {
  if (text.length <= LONG_TEXT || nCtx === Infinity) return
  let count = 0
  let cuts = 0
  for (let from = 0; from < text.length; cuts++) {
    const space = from + PIECE < text.length ? text.lastIndexOf(' ', from + PIECE) : -1
    const to = space > from ? space : from + PIECE
    count += engine.tokenizer.encode(text.slice(from, to), { addSpecial: false, parseSpecial: true }).length
    from = to
    await yieldToOthers()
  }
  if (count - CUT_TOKENS * cuts > nCtx) throw tooLong(count, nCtx)
}

export async function tokensOfChat(engine: ServedEngine, messages: readonly ChatMessage[], nCtx: number): Promise<Int32Array> {
  await refuseLongText(engine, messages.map((message) => message.content).join('\n'), nCtx)
  return encodeMessages(engine, messages)
}

export async function tokensOfPrompts(engine: ServedEngine, prompts: readonly Prompt[], nCtx: number): Promise<Int32Array[]> {
  const tokens: Int32Array[] = []
  for (const prompt of prompts) {
    if (typeof prompt === 'string') await refuseLongText(engine, prompt, nCtx)
    else if (prompt.length > nCtx) throw tooLong(prompt.length, nCtx)
    tokens.push(encodePrompt(engine, prompt))
    if (prompts.length > 1) await yieldToOthers()
  }
  return tokens
}
