/** Chat messages → one prompt text. */
export interface ChatMessage {
  readonly role: string
  readonly content: string
}

export declare class ChatTemplate {
  /** The Jinja source, or null where the model has none and the plain fallback is used. */
  readonly source: string | null
  render(messages: readonly ChatMessage[], options?: { readonly addGenerationPrompt?: boolean }): string
}
