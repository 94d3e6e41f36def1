/** How messages are written for a model that brings no template of its own. */
export interface ChatMessage {
  readonly role: string
  readonly content: string
}

type Write = (messages: readonly ChatMessage[], addGenerationPrompt: boolean) => string

/** For a model whose vocabulary has ChatML's tokens. */
export const writeChatml: Write = (messages, addGenerationPrompt) =>
  messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join('') +
  (addGenerationPrompt ? '<|im_start|>assistant\n' : '')

/** For a model that only continues texts: a dialogue, as books write it. The system message is its introduction. */
export const writePlain: Write = (messages, addGenerationPrompt) => {
  const name = (role: string) => role.slice(0, 1).toUpperCase() + role.slice(1)
  const lines = messages.map(({ role, content }) => (role === 'system' ? `${content}\n\n` : `${name(role)}: ${content}\n`))
  return lines.join('') + (addGenerationPrompt ? 'Assistant:' : '')
}

/** No token ends an answer in such a dialogue; the next turn does. */
export const PLAIN_STOP = '\nUser:'
