/** Chats and weights: which template a model has, and how a rendered chat becomes tokens. */
import type { WeightSource } from '../weights/source.ts'
import { ChatTemplate } from './chat-template.ts'
import { readTemplateFile, readTokenizerConfig, toList } from './hf-files.ts'
import type { Tokenizer } from './tokenizer.ts'

/** The template that belongs to the weights. Errors: `tokenizer_invalid` for a damaged file of a Hugging Face folder. */
export function chatTemplateOf(source: WeightSource, tokenizer: Tokenizer): ChatTemplate {
  const textOf = (token: number | null) => (token === null ? '' : tokenizer.text(token))
  const isToken = (text: string) => tokenizer.encode(text, { addSpecial: false, parseSpecial: true }).length === 1
  return new ChatTemplate({
    source: source.format === 'gguf' ? ofGguf(source) : ofFolder(source.path),
    bos: textOf(tokenizer.bos),
    eos: textOf(tokenizer.eos),
    knowsChatml: isToken('<|im_start|>') && isToken('<|im_end|>'),
  })
}

function ofGguf(source: WeightSource): string | null {
  const template = source.metadata('tokenizer.chat_template')
  return typeof template === 'string' && template !== '' ? template : null
}

/** Of several templates the one named `default`. */
function ofFolder(folder: string): string | null {
  const fromFile = readTemplateFile(folder)
  if (fromFile !== undefined) return fromFile
  const templates = toList<string | { name: string; template: string }>(readTokenizerConfig(folder).chat_template)
  const chosen = templates.find((each) => typeof each === 'string' || each.name === 'default') ?? templates[0]
  return (typeof chosen === 'object' ? chosen.template : chosen) || null
}

/**
 * The tokens of a rendered chat. Names of special tokens are the tokens they name, in what people wrote too: a template
 * leaves no mark between the two. BOS stands in front exactly once, whether the template wrote it or the vocabulary adds it;
 * EOS is not added, for the answer is still to come.
 */
export function encodeChat(tokenizer: Tokenizer, text: string): Int32Array {
  const ids = tokenizer.encode(text, { addSpecial: false, parseSpecial: true })
  const { bos, addBos } = tokenizer
  if (!addBos || bos === null || ids[0] === bos) return ids
  const all = new Int32Array(ids.length + 1)
  all[0] = bos
  all.set(ids, 1)
  return all
}
