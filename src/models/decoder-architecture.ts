/** An architecture from how it differs. */
import { decoderModel } from './decoder.ts'
import { decoderHyperparameters } from './decoder-shape.ts'
import type { DecoderSpec } from './decoder-spec.ts'
import { decoderWeights } from './decoder-weights.ts'
import type { Architecture } from './architecture.ts'

export function decoderArchitecture(spec: DecoderSpec): Architecture {
  return {
    gguf: spec.gguf,
    huggingface: spec.huggingface,
    hyperparameters: (source) => decoderHyperparameters(spec, source),
    build: (hp, source, uploader) => decoderModel(decoderWeights(spec, hp, source, uploader)),
  }
}
