/** The first of `tokens` that is none of `nVocab`, or null: ggml ends the process where a row is looked up that is not there. */
export function strangeToken(tokens: ArrayLike<number>, nVocab: number): number | null {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!
    if (!(Number.isInteger(token) && token >= 0 && token < nVocab)) return token
  }
  return null
}
