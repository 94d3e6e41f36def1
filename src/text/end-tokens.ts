/**
 * Tokens that end a generation, known by their texts: models seldom list them all, and libllama goes by the same names.
 * A vocabulary that has such a text has it as a control token, whatever it says.
 */
const END_TEXTS = [
  '<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|> <end_of_turn> <|endoftext|> </s> <|eom_id|>',
  '<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> <｜end▁of▁sentence｜> [e~[',
  // padding, and boundaries of files in code completion
  '<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>',
].flatMap((line) => line.split(' '))

/** The tokens among `idOf`'s whose texts end a generation. */
export function endTokens(idOf: (text: string) => number | undefined): ReadonlySet<number> {
  const ids = new Map(END_TEXTS.map((text) => [text, idOf(text)]))
  const has = (...texts: string[]) => texts.every((text) => ids.get(text) !== undefined)
  // Here <|end|> ends a message, not the answer.
  if (has('<|return|>', '<|call|>') || has('<|calls|>', '<|flush|>')) ids.delete('<|end|>')
  if (has('<|tool_response>')) ids.delete('</s>')
  return new Set([...ids.values()].filter((id) => id !== undefined))
}
