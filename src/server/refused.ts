/**
 * Fields of OpenAI's, llama.cpp's and vLLM's requests that would change the answer, and that we do not have. Each stands
 * with the test for values that ask for nothing; any other value is an error, for silence would be a wrong answer.
 * Fields that stand neither here nor in the schema (`user`, `metadata`, `store`, …) are ignored.
 */
import { invalid } from './error-body.ts'

type Test = (value: unknown) => boolean

const is =
  (off: unknown): Test =>
  (value) =>
    value === off
const never: Test = () => false
const isEmpty: Test = (value) => value === '' || (typeof value === 'object' && value !== null && Object.keys(value).length === 0)

const HARMLESS: Record<string, Test> = {
  tools: isEmpty,
  functions: isEmpty,
  tool_choice: is('none'),
  function_call: is('none'),
  response_format: (value) => (value as { type?: unknown }).type === 'text',
  suffix: is(''),
  audio: never,
  modalities: (value) => Array.isArray(value) && value.every(is('text')),
  prediction: never,
  web_search_options: never,
  grammar: isEmpty,
  json_schema: isEmpty,
  structured_outputs: isEmpty,
  chat_template: never,
  chat_template_kwargs: isEmpty,
  continue_final_message: is(false),
  use_beam_search: is(false),
  n_probs: is(0),
  typical_p: is(1),
  dynatemp_range: is(0),
  mirostat: is(0),
  xtc_probability: is(0),
  dry_multiplier: is(0),
  lora: isEmpty,
}

/** Throws for the first field that asks for something we cannot do. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(body))
    if (Object.hasOwn(HARMLESS, name) && !HARMLESS[name]!(value)) throw invalid(name, 'is not supported; leave it out')
}
