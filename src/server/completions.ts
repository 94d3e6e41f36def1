/** POST /v1/completions */
import type { GenerateRequest } from '../core/request.ts'
import { readBody } from './body.ts'
import type { AppContext } from './context.ts'
import { invalid } from './error-body.ts'
import type { Format, Part } from './format.ts'
import { answer, allowedTo, toRequests } from './generate.ts'
import { completionLogprobs } from './openai-logprobs.ts'
import { tokensOfPrompts } from './prompt.ts'
import { refuseUnsupported } from './refused.ts'
import { completionSchema, type Prompt } from './schema.ts'
import type { ServedEngine } from './served-engine.ts'

interface CompletionChoice {
  readonly request: GenerateRequest
  /** The prompt's text, where it is to be repeated. */
  readonly echo: string | null
}

function completionFormat(engine: ServedEngine, choices: readonly CompletionChoice[]): Format {
  const writers = choices.map(() => completionLogprobs(engine.tokenizer))

  function choice(index: number, part: Part, finish_reason: string | null): object {
    const { request } = choices[index]!
    const prompt = part.promptLogprobs.map((logprob, i) => ({ token: request.prompt[i]!, logprob }))
    const tokens = part.logprobs.map((logprob) => ({ token: logprob.token, logprob }))
    const logprobs = request.topLogprobs < 0 ? null : writers[index]!([...prompt, ...tokens])
    return { index, text: part.text, logprobs, finish_reason }
  }

  return {
    idPrefix: 'cmpl',
    object: 'text_completion',
    chunkObject: 'text_completion',
    open: (index, part) => {
      const { echo } = choices[index]!
      return echo === null ? null : choice(index, { ...part, text: echo }, null)
    },
    piece: (index, part) => choice(index, part, null),
    close: (index, reason) => ({ index, text: '', logprobs: null, finish_reason: reason }),
    whole: (index, part, reason) => choice(index, { ...part, text: (choices[index]!.echo ?? '') + part.text }, reason),
  }
}

/** Log-probabilities of prompts in one reply, which is built in memory. */
const MAX_ECHOED = 4_000_000

/** One prompt or several; an array of numbers is one prompt. */
function listPrompts(given: Prompt | Prompt[]): Prompt[] {
  return typeof given === 'string' || typeof given[0] === 'number' ? [given as Prompt] : (given as Prompt[])
}

export async function completions(c: AppContext): Promise<Response> {
  const { engine } = c.var
  const body = await readBody(c, completionSchema, refuseUnsupported)
  if (body.best_of !== undefined && body.best_of > body.n) throw invalid('best_of', 'more than n is not supported')
  const given = listPrompts(body.prompt)
  const { nCtx, attention } = allowedTo(c, body)
  const prompts = await tokensOfPrompts(engine, given, nCtx)
  const topLogprobs = body.logprobs ?? -1
  const nEchoed = body.echo ? prompts.reduce((sum, prompt) => sum + prompt.length, 0) * body.n : 0
  if (nEchoed * (topLogprobs + 1) > MAX_ECHOED)
    throw invalid('logprobs', `more than ${MAX_ECHOED} for the prompts of one request; send fewer prompts at once`)
  const requests = toRequests(c, { body, attention, prompts, topLogprobs, promptLogprobs: body.echo && topLogprobs >= 0 })
  const echoes = given.map((prompt) => (typeof prompt === 'string' ? prompt : engine.tokenizer.decode(prompt)))
  const choices = requests.map((request, index) => ({ request, echo: body.echo ? echoes[Math.floor(index / body.n)]! : null }))
  return answer(c, body, requests, completionFormat(engine, choices))
}
