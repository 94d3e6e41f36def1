/** The registry of architectures: one line each. */
import { KvasirError } from '../core/errors.ts'
import type { WeightSource } from '../weights/source.ts'
import { gemma3 } from './gemma3.ts'
import { llama } from './llama.ts'
import type { Architecture } from './architecture.ts'
import { opt } from './opt.ts'
import { qwen3 } from './qwen3.ts'

export const ARCHITECTURES: readonly Architecture[] = [llama, qwen3, gemma3, opt]

/** The architecture of a file, by its own words. */
export function architectureOf(source: WeightSource): Architecture {
  const key = source.format === 'gguf' ? 'general.architecture' : 'model_type'
  const name = source.metadata(key)
  const found = ARCHITECTURES.find((a) =>
    source.format === 'gguf' ? a.gguf === name : a.huggingface.some((type) => type === name),
  )
  if (found) return found
  const known = ARCHITECTURES.map((a) => (source.format === 'gguf' ? a.gguf : a.huggingface.join(', '))).join(', ')
  const reason = typeof name === 'string' ? `its architecture is '${name}'; known: ${known}` : `it names no architecture (${key})`
  throw new KvasirError('model_unsupported', { path: source.path, reason })
}
