/** GET /health and /props. */
import { samplingSchema } from '../core/sampling.ts'
import { buildInfo } from './build-info.ts'
import type { AppContext } from './context.ts'
import { ATTENTION_METHODS } from './schema.ts'

/** Reached once the model is loaded; before, the app answers 503. */
export function health(c: AppContext): Response {
  return c.json({ status: 'ok' })
}

/** llama.cpp's fields, and what the caches and weights take. */
export function props(c: AppContext): Response {
  const { engine } = c.var
  const stats = engine.stats()
  return c.json({
    default_generation_settings: {
      n_ctx: engine.nCtx,
      params: { ...samplingSchema.parse({}), max_tokens: -1, n_predict: -1, stop: [], ignore_eos: false, attention: 'dense' },
    },
    total_slots: engine.nParallel,
    model_path: engine.path,
    model_alias: engine.name,
    chat_template: engine.template.source,
    modalities: { vision: false, audio: false },
    build_info: buildInfo,
    attention_methods: ATTENTION_METHODS,
    n_ctx_train: engine.shape.nCtxTrain,
    n_threads: engine.nThreads,
    kv_bytes_per_token: stats.kvBytesPerToken,
    weight_bytes: stats.weightBytes,
  })
}
