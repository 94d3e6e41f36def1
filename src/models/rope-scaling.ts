/** How models say that their rotation was stretched to longer contexts. */
import type { RopeScaling } from '../nn/rope.ts'
import type { Fields } from './hyperparameters.ts'

const MOST_TOKENS = 2 ** 30

export function ggufScaling(f: Fields, nCtxTrain: number): RopeScaling {
  const factor = f.positive('rope.scaling.factor', f.positive('rope.scale_linear', 1))
  const type = f.text('rope.scaling.type') ?? 'linear'
  if (type === 'none' || (type === 'linear' && factor === 1)) return { type: 'none' }
  if (type === 'linear') return { type, factor }
  if (type !== 'yarn') throw f.unsupported(`RoPE scaling '${type}'`)
  return {
    type,
    factor,
    nCtxOrig: f.count('rope.scaling.original_context_length', MOST_TOKENS, nCtxTrain),
    attnFactor: f.positive('rope.scaling.attn_factor', 1),
    betaFast: f.positive('rope.scaling.yarn_beta_fast', 32),
    betaSlow: f.positive('rope.scaling.yarn_beta_slow', 1),
  }
}

export function configScaling(r: Fields, nCtxTrain: number): RopeScaling {
  const type = r.text('rope_type') ?? r.text('type') ?? 'default'
  const nCtxOrig = r.count('original_max_position_embeddings', MOST_TOKENS, nCtxTrain)
  if (type === 'default') return { type: 'none' }
  if (type === 'linear') return { type, factor: r.positive('factor') }
  if (type === 'llama3') {
    const [lowFreqFactor, highFreqFactor] = [r.positive('low_freq_factor', 1), r.positive('high_freq_factor', 4)]
    return { type, factor: r.positive('factor', 8), lowFreqFactor, highFreqFactor, nCtxOrig }
  }
  if (type !== 'yarn') throw r.unsupported(`RoPE scaling '${type}'`)
  const factor = r.positive('factor')
  // ggml applies YaRN's own attention factor; the config's, if it has one, replaces that.
  const usual = 1 + 0.1 * Math.log(factor)
  const attnFactor = r.positive('attention_factor', usual) / usual
  const [betaFast, betaSlow] = [r.positive('beta_fast', 32), r.positive('beta_slow', 1)]
  return { type, factor, nCtxOrig, attnFactor, betaFast, betaSlow }
}
