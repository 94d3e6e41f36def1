/** POST /v1/chat/completions */
import { readBody } from './body.ts'
import type { AppContext } from './context.ts'
import { invalid } from './error-body.ts'
import type { Format, Part } from './format.ts'
import { answer, allowedTo, toRequests } from './generate.ts'
import { chatLogprobs } from './openai-logprobs.ts'
import { tokensOfChat } from './prompt.ts'
import { refuseUnsupported } from './refused.ts'
import { chatSchema } from './schema.ts'
import type { ServedEngine } from './served-engine.ts'

function chatFormat(engine: ServedEngine, hasLogprobs: boolean): Format {
  const logprobs = (part: Part): object | null => (hasLogprobs ? chatLogprobs(engine.tokenizer, part.logprobs) : null)
  return {
    idPrefix: 'chatcmpl',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    open: (index) => ({ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }),
    piece: (index, part) => ({ index, delta: { content: part.text }, logprobs: logprobs(part), finish_reason: null }),
    close: (index, finish_reason) => ({ index, delta: {}, logprobs: null, finish_reason }),
    whole: (index, part, finish_reason) => ({
      index,
      message: { role: 'assistant', content: part.text, refusal: null },
      logprobs: logprobs(part),
      finish_reason,
    }),
  }
}

export async function chatCompletions(c: AppContext): Promise<Response> {
  const { engine } = c.var
  const body = await readBody(c, chatSchema, refuseUnsupported)
  if (body.top_logprobs !== undefined && !body.logprobs) throw invalid('top_logprobs', 'needs logprobs to be true')
  const { nCtx, attention } = allowedTo(c, body)
  const requests = toRequests(c, {
    body,
    attention,
    prompts: [await tokensOfChat(engine, body.messages, nCtx)],
    topLogprobs: body.logprobs ? (body.top_logprobs ?? 0) : -1,
    promptLogprobs: false,
    stop: engine.template.stop,
  })
  return answer(c, body, requests, chatFormat(engine, body.logprobs))
}
