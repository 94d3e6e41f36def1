/** Opens a model by its path, whatever kind it is. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { reasonOf } from '../core/errors.ts'
import { openGguf } from './gguf.ts'
import { modelError, statPath } from './model-file.ts'
import { hasSafetensors, openHuggingFace } from './safetensors.ts'
import type { WeightSource } from './source.ts'

/**
 * A file is GGUF; a folder is a Hugging Face model if it has config.json and safetensors, else stands for the one GGUF in it.
 * Errors: `model_not_found`, `model_invalid`, `model_unsupported`.
 */
export function openWeights(path: string): WeightSource {
  if (!statPath(path).isDirectory()) return openFile(path)
  const models = ggufModels(path)
  const hasConfig = existsSync(join(path, 'config.json'))
  if (hasConfig && (hasSafetensors(path) || models.length === 0)) return openHuggingFace(path)
  return openGguf(onlyOne(path, models))
}

function openFile(path: string): WeightSource {
  if (!path.endsWith('.safetensors')) return openGguf(path)
  throw modelError('model_unsupported', path, { reason: 'give the folder that holds it and config.json' })
}

function onlyOne(folder: string, models: readonly string[]): string {
  const fail = (reason: string): never => {
    throw modelError('model_not_found', folder, { reason })
  }
  if (models.length === 0) fail('the folder has neither a config.json nor a .gguf file')
  if (models.length > 1) fail(`the folder has several models; name one of ${models.toSorted().join(', ')}`)
  return join(folder, models[0]!)
}

/** The folder's GGUF files, without the later parts of split ones: those are opened with the first. */
function ggufModels(folder: string): string[] {
  try {
    const isLaterPart = (name: string) => /-\d{5,}-of-\d{5,}\.gguf$/.test(name) && !/-0+1-of-\d+\.gguf$/.test(name)
    return readdirSync(folder).filter((name) => name.endsWith('.gguf') && !isLaterPart(name))
  } catch (error) {
    throw modelError('model_not_found', folder, { reason: reasonOf(error), cause: error })
  }
}
