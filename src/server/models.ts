/** GET /v1/models and /v1/models/:id: the one model that is loaded. */
import { KvasirError } from '../core/errors.ts'
import type { WeightSource } from '../weights/source.ts'
import type { AppContext } from './context.ts'
import type { ServedEngine } from './served-engine.ts'

/** The time that `created` reports. */
const started = Math.floor(Date.now() / 1000)

function countWeights(source: WeightSource): { n_params: number; size: number } {
  let n_params = 0
  let size = 0
  for (const tensor of source.tensors.values()) {
    n_params += tensor.ne.reduce((product, n) => product * n, 1)
    size += tensor.nBytes
  }
  return { n_params, size }
}

function describe({ name, source, shape, nCtx }: ServedEngine): object {
  return {
    id: name,
    object: 'model',
    created: started,
    owned_by: 'kvasir',
    max_model_len: nCtx,
    meta: { n_ctx_train: shape.nCtxTrain, n_vocab: shape.nVocab, n_embd: shape.nEmbd, ...countWeights(source) },
  }
}

export function listModels(c: AppContext): Response {
  return c.json({ object: 'list', data: [describe(c.var.engine)] })
}

export function getModel(c: AppContext): Response {
  const { engine } = c.var
  const id = c.req.param('id')!
  if (id !== engine.name) throw new KvasirError('model_not_found', { path: id, reason: `this server has '${engine.name}'` })
  return c.json(describe(engine))
}
