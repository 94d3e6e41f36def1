/** Log-probabilities as OpenAI writes them: one shape for chat, another, older one for completions. */
import { isUtf8 } from 'node:buffer'
import type { TokenLogprob } from '../core/request.ts'
import type { Tokenizer } from '../text/tokenizer.ts'

export interface ChatLogprob {
  readonly token: string
  readonly logprob: number
  readonly bytes: readonly number[]
}

export interface ChatLogprobs {
  readonly content: readonly (ChatLogprob & { readonly top_logprobs: readonly ChatLogprob[] })[]
  readonly refusal: null
}

export interface CompletionLogprobs {
  readonly tokens: string[]
  readonly token_logprobs: (number | null)[]
  readonly top_logprobs: (Record<string, number> | null)[]
  /** Characters of the choice's text before each token. */
  readonly text_offset: number[]
}

/** JSON has no -Infinity; OpenAI's stand-in for it. */
const finite = (logprob: number): number => Math.max(logprob, -9999)

export function chatLogprobs(tokenizer: Tokenizer, tokens: readonly TokenLogprob[]): ChatLogprobs {
  const one = ({ token, logprob }: { token: number; logprob: number }): ChatLogprob => {
    const bytes = tokenizer.piece(token, true)
    return { token: Buffer.from(bytes).toString('utf8'), logprob: finite(logprob), bytes: [...bytes] }
  }
  return { content: tokens.map((token) => ({ ...one(token), top_logprobs: token.top.map(one) })), refusal: null }
}

/** The name of a token among completions' logprobs: its text, or `bytes:\xe2\x80` where it is not whole characters. */
function tokenName(tokenizer: Tokenizer, token: number): string {
  const bytes = Buffer.from(tokenizer.piece(token, true))
  if (isUtf8(bytes)) return bytes.toString('utf8')
  return `bytes:${bytes.toString('hex').replace(/../g, '\\x$&')}`
}

/** For one choice: writes its tokens part by part, and keeps count of the characters before them. */
export function completionLogprobs(
  tokenizer: Tokenizer,
): (tokens: readonly { readonly token: number; readonly logprob: TokenLogprob | null }[]) => CompletionLogprobs {
  const decoder = new TextDecoder()
  let offset = 0
  return (tokens) => {
    const written: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
    for (const { token, logprob } of tokens) {
      // The token itself is always among the alternatives, so there may be one more than asked for.
      const top = logprob && [...logprob.top, logprob].map((each) => [tokenName(tokenizer, each.token), finite(each.logprob)])
      written.tokens.push(tokenName(tokenizer, token))
      written.token_logprobs.push(logprob && finite(logprob.logprob))
      written.top_logprobs.push(top && Object.fromEntries(top))
      written.text_offset.push(offset)
      offset += decoder.decode(tokenizer.piece(token), { stream: true }).length
    }
    return written
  }
}
