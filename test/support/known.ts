/** What can be compared with what: tests of an architecture begin by themselves once the registry has it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ARCHITECTURES } from '../../src/models/architectures.ts'
import { SYNTH_SHAPES } from '../../src/weights/synth-shapes.ts'

/** Architectures of ours that libllama lacks. */
const LIBLLAMA_LACKS = ['opt']

/** Whether we run a model of random weights of this shape, and libllama does. */
export function isComparable(like: string): boolean {
  const { arch } = SYNTH_SHAPES.get(like)!
  return !LIBLLAMA_LACKS.includes(arch) && ARCHITECTURES.some(({ gguf }) => (gguf as string) === arch)
}

/** Whether we run the model of a Hugging Face folder. */
export function isKnownFolder(folder: string): boolean {
  const type: string = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')).model_type
  return ARCHITECTURES.some(({ huggingface }) => (huggingface as readonly string[]).includes(type))
}
