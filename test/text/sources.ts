/** Sources of weights for tests of text: the bundled model in both forms, changed copies, and folders made up for one test. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { llama } from '../../src/ggml/libllama.ts'
import type { Pointer } from '../../src/ggml/bindings.ts'
import { openGguf } from '../../src/weights/gguf.ts'
import type { MetadataValue, WeightSource } from '../../src/weights/source.ts'

export const FOLDER = fileURLToPath(new URL('../../models/kvasir-demo', import.meta.url))
export const GGUF = join(FOLDER, 'kvasir-demo-f16.gguf')

export type Metadata = Readonly<Record<string, MetadataValue | undefined>>

export function sourceOf(format: 'gguf' | 'huggingface', metadata: Metadata, path = 'test'): WeightSource {
  const keys = Object.keys(metadata).filter((key) => metadata[key] !== undefined)
  return {
    path,
    format,
    files: [],
    tensors: new Map(),
    metadata: (key) => metadata[key],
    metadataKeys: () => keys,
    [Symbol.dispose]: () => {},
  }
}

/** The bundled model's metadata, with `changes`; undefined leaves a key out. */
export function bundled(changes: Metadata = {}): Metadata {
  using source = openGguf(GGUF)
  return { ...Object.fromEntries(source.metadataKeys().map((key) => [key, source.metadata(key)])), ...changes }
}

/** A Hugging Face folder with these files; texts are written as they are, everything else as JSON. */
export function writeFolder(folder: string, files: Readonly<Record<string, unknown>>, config: Metadata = {}): WeightSource {
  for (const [name, content] of Object.entries(files))
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content))
  return sourceOf('huggingface', config, folder)
}

/** libllama's own reading of a file, and `llama_tokenize` with nothing around it. */
export class DirectVocab implements Disposable {
  readonly #model: Pointer
  readonly vocab: Pointer

  constructor(path: string) {
    const api = llama()
    const params = { ...api.llama_model_default_params(), vocab_only: true, n_gpu_layers: 0 }
    const model = api.llama_model_load_from_file(path, params)
    if (model === null) throw new Error(`libllama cannot load ${path}`)
    this.#model = model
    this.vocab = api.llama_model_get_vocab(model)
  }

  tokenize(text: string, addSpecial: boolean, parseSpecial: boolean): Int32Array {
    const bytes = Buffer.from(text)
    const ids = new Int32Array(bytes.length + 4)
    return ids.slice(0, llama().llama_tokenize(this.vocab, bytes, bytes.length, ids, ids.length, addSpecial, parseSpecial))
  }

  [Symbol.dispose](): void {
    llama().llama_model_free(this.#model)
  }
}
