/** Goes on training a whole model on a text, and writes it as a GGUF. */
import type { GgufSource } from '../weights/gguf.ts'
import { forwardLlama, trainableLlama } from './trainable-llama.ts'
import type { Objective } from './objective.ts'
import type { Parameters } from './parameters.ts'
import { type TrainFiles, trainFile } from './train-file.ts'
import { saveModel } from './save-model.ts'
import type { TrainReport } from './train.ts'

/** Called again with the same options after it was stopped, it goes on. Errors: those of {@link trainFile}. */
export function finetune(files: TrainFiles): Promise<TrainReport> {
  return trainFile(files, (base, parameters) => ({
    objective: languageModelling(base, parameters),
    identity: { what: 'finetune' },
    save: (path) => saveModel(base, { path, parameters }),
  }))
}

/** The next token, with all of the model's tensors learning. */
function languageModelling(base: GgufSource, parameters: Parameters): Objective {
  const model = trainableLlama(base, parameters, () => true)
  const { nVocab } = model.hp.shape
  return {
    parameters,
    nVocab,
    loss: (g, batch) => g.crossEntropyLoss(forwardLlama(g, model, { batch }), batch.targets),
  }
}
