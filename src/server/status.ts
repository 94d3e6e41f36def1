/** GET /health, /props and /metrics. */
import { AXIS_QUESTIONS, methodInfos } from '../attention/catalogue.ts'
import { canonicalParts } from '../attention/spec.ts'
import { samplingSchema } from '../core/sampling.ts'
import { buildInfo } from './build-info.ts'
import type { AppContext } from './context.ts'

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
      params: {
        ...samplingSchema.parse({}),
        max_tokens: -1,
        n_predict: -1,
        stop: [],
        ignore_eos: false,
        attention: engine.attention,
      },
    },
    total_slots: engine.nParallel,
    model_path: engine.path,
    model_alias: engine.name,
    chat_template: engine.template.source,
    modalities: { vision: false, audio: false },
    build_info: buildInfo,
    /** The default setting once more, as objects; dense is none. */
    attention_default: canonicalParts(engine.attention),
    attention_methods: methodInfos(),
    attention_axes: AXIS_QUESTIONS,
    n_ctx_train: engine.shape.nCtxTrain,
    n_threads: engine.nThreads,
    kv_bytes_per_token: stats.kvBytesPerToken,
    weight_bytes: stats.weightBytes,
  })
}

/** For Prometheus. */
export async function metrics(c: AppContext): Promise<Response> {
  return c.body(await c.var.metrics.text(), 200, { 'content-type': c.var.metrics.contentType })
}
