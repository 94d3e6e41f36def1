/** The library: what `import … from 'kvasir'` gives. */
export { ERRORS, type ErrorCode, KvasirError } from './core/errors.ts'
export { type LogLevel, setLogLevel, setLogSink } from './core/log.ts'
export { type MethodInfo, methodInfos } from './attention/catalogue.ts'
export type { AttentionSetting, AttentionUsage, MethodSetting, StopReason, Timings, TokenLogprob, Usage } from './core/request.ts'
export type { ModelShape } from './core/shape.ts'
export type {
  AnswerOptions,
  Completion,
  GenerateOptions,
  Piece,
  PromptProgress,
  SamplingOptions,
} from './engine/generate-options.ts'
export { Chat, type ChatOptions } from './engine/chat-session.ts'
export { type LoadOptions, Model, bundledModel, load } from './engine/model.ts'
export type { ChatMessage } from './text/chat-template.ts'
export type { EncodeOptions } from './text/tokenizer.ts'
export { type RunningServer, type ServeOptions, startServer } from './server/serve.ts'
