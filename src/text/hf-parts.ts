/** The components of tokenizer.json, as far as we look into them ourselves. */
import { KvasirError } from '../core/errors.ts'
import type { TokenizerFile } from './hf-files.ts'

type Part = { readonly [key: string]: unknown; readonly type?: string | undefined }

function isPart(value: unknown): value is Part {
  return typeof value === 'object' && value !== null
}

/** A component with those it is a sequence of, at any depth. */
function* partsOf(part: unknown): Generator<Part> {
  if (!isPart(part)) return
  yield part
  for (const list of [part.normalizers, part.pretokenizers, part.processors, part.decoders]) {
    if (Array.isArray(list)) for (const inner of list) yield* partsOf(inner)
  }
}

export function hasComponent(part: unknown, type: string): boolean {
  return [...partsOf(part)].some((inner) => inner.type === type)
}

/** Errors: `tokenizer_invalid` for what would not throw, but never end. */
export function requireUsable(path: string, file: TokenizerFile): void {
  for (const part of partsOf(file.pre_tokenizer)) {
    if (part.type === 'FixedLength' && !(typeof part.length === 'number' && part.length >= 1))
      throw new KvasirError('tokenizer_invalid', { path, reason: 'tokenizer.json: a pre-tokenizer cuts texts into empty parts' })
  }
}

/** Tokens that the post-processor puts before and after a text. */
export function addedAround(
  file: TokenizerFile,
  idOf: (text: string) => number | undefined,
): { readonly prefix: number[]; readonly suffix: number[] } {
  const prefix: number[] = []
  const suffix: number[] = []
  const add = (list: number[], text: unknown) => {
    const id = typeof text === 'string' ? idOf(text) : undefined
    if (id !== undefined) list.push(id)
  }
  for (const part of partsOf(file.post_processor)) {
    if (part.type === 'TemplateProcessing' && Array.isArray(part.single)) {
      let list = prefix
      for (const item of part.single as unknown[]) {
        if (!isPart(item)) continue
        if (isPart(item.Sequence)) list = suffix
        else if (isPart(item.SpecialToken)) add(list, item.SpecialToken.id)
      }
    } else if (part.type === 'BertProcessing' || part.type === 'RobertaProcessing') {
      add(prefix, Array.isArray(part.cls) ? part.cls[0] : undefined)
      add(suffix, Array.isArray(part.sep) ? part.sep[0] : undefined)
    }
  }
  return { prefix, suffix }
}
