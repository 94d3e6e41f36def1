/** The library's front: a loaded model that generates, chats and counts tokens. */
import { fileURLToPath } from 'node:url'
import { KvasirError } from '../core/errors.ts'
import type { TokenLogprob } from '../core/request.ts'
import type { ModelShape } from '../core/shape.ts'
import type { ChatMessage } from '../text/chat-template.ts'
import type { EncodeOptions } from '../text/tokenizer.ts'
import { type Completion, type GenerateOptions, type Piece, encodeMessages, encodePrompt, toRequest } from './generate-options.ts'
import { Chat, type ChatOptions } from './chat-session.ts'
import { Engine, type EngineOptions } from './engine.ts'

export type LoadOptions = EngineOptions

/** Path of the model that comes with the package. */
export function bundledModel(): string {
  return fileURLToPath(new URL('../../models/kvasir-demo/kvasir-demo-f16.gguf', import.meta.url))
}

/** Loads a .gguf file or a Hugging Face folder; without a path, the bundled model. */
export async function load(path: string = bundledModel(), options: LoadOptions = {}): Promise<Model> {
  if (options.signal?.aborted) throw new KvasirError('aborted')
  return new Model(await Engine.load(path, options))
}

export class Model implements AsyncDisposable {
  /** For what this class does not offer; its methods work on token ids. */
  readonly engine: Engine

  constructor(engine: Engine) {
    this.engine = engine
  }

  get name(): string {
    return this.engine.name
  }

  get shape(): ModelShape {
    return this.engine.shape
  }

  /** Context per sequence in tokens. */
  get nCtx(): number {
    return this.engine.nCtx
  }

  /** Streams an answer piece by piece; the generator's return value is the whole. Leaving the loop stops the model. */
  async *generate(options: GenerateOptions): AsyncGenerator<Piece, Completion, undefined> {
    let text = ''
    const tokens: number[] = []
    const logprobs: TokenLogprob[] = []
    for await (const event of this.engine.submit(toRequest(this.engine, options))) {
      if (event.kind === 'progress') options.onProgress?.(event)
      else if (event.kind === 'token') {
        text += event.text
        tokens.push(event.token)
        if (event.logprob) logprobs.push(event.logprob)
        yield { text: event.text, token: event.token, logprob: event.logprob }
      } else if (event.kind === 'done') {
        text += event.text
        if (event.text !== '') yield { text: event.text, token: null, logprob: null }
        return { text, tokens, logprobs, ...event.result }
      }
    }
    throw new KvasirError('closed')
  }

  /** The whole answer at once. */
  async complete(options: GenerateOptions): Promise<Completion> {
    const pieces = this.generate(options)
    for (;;) {
      const next = await pieces.next()
      if (next.done) return next.value
    }
  }

  /** A conversation that keeps its history. */
  chat(options: ChatOptions = {}): Chat {
    return new Chat((request) => this.generate(request), options)
  }

  /** Tokens that a prompt takes, special tokens included; messages are put through the chat template first. */
  countTokens(input: string | readonly ChatMessage[]): number {
    return (typeof input === 'string' ? encodePrompt(this.engine, input) : encodeMessages(this.engine, input)).length
  }

  tokenize(text: string, options?: EncodeOptions): Int32Array {
    return this.engine.tokenizer.encode(text, options)
  }

  detokenize(tokens: ArrayLike<number>): string {
    return this.engine.tokenizer.decode(tokens)
  }

  /** Stops what is running and frees the model. */
  async close(): Promise<void> {
    await this.engine[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
