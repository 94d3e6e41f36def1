/**
 * Llama (1, 2, 3), Mistral, TinyLlama, SmolLM: RMSNorm, rotary attention with shared KV heads, gated feed-forward.
 *
 * GGUF files interleave the rows of Wq and Wk so that neighbouring pairs are rotated; Hugging Face files rotate the two
 * halves of a head. The weights are used as they lie, and the rotation follows the file.
 */
import type { AttentionLayer } from '../attention/method.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { Linear } from '../nn/linear.ts'
import { type GatedMlp, gatedMlp } from '../nn/mlp.ts'
import { type RmsNorm, rmsNorm } from '../nn/norm.ts'
import { llama3Factors, type Rope, ropeParams, type RopeScaling } from '../nn/rope.ts'
import type { WeightSource } from '../weights/source.ts'
import type { TensorSource, Uploader } from '../weights/upload.ts'
import { Fields } from './hyperparameters.ts'
import { sharingOf } from './layer-sharing.ts'
import type { Architecture, Hyperparameters, Model } from './model.ts'
import { throughLayers } from './stack.ts'

export interface LlamaLayer {
  readonly attentionNorm: RmsNorm
  readonly attention: AttentionLayer
  readonly mlpNorm: RmsNorm
  readonly mlp: GatedMlp
}

export interface LlamaWeights {
  readonly tokenEmbedding: Tensor
  readonly layers: readonly LlamaLayer[]
  readonly outputNorm: RmsNorm
  readonly output: Tensor
}

/** Limits that only a damaged file exceeds. */
const MOST = { layers: 1024, width: 2 ** 20, heads: 4096, tokens: 2 ** 30, vocab: 2 ** 24 } as const

export const llama: Architecture = {
  gguf: 'llama',
  huggingface: ['llama', 'mistral', 'lckv-llama'],
  hyperparameters: (source) => (source.format === 'gguf' ? fromGguf(source) : fromConfig(source)),
  build,
}

function fromGguf(source: WeightSource): Hyperparameters {
  const f = new Fields(source, 'llama.')
  if (f.get('expert_count') !== undefined && f.get('expert_count') !== 0) throw f.unsupported('mixtures of experts')
  const tokens = source.metadata('tokenizer.ggml.tokens')
  const nHead = f.count('attention.head_count', MOST.heads)
  const nEmbd = f.count('embedding_length', MOST.width)
  const headDim = f.count('attention.key_length', MOST.width, nEmbd / nHead)
  if (f.count('attention.value_length', MOST.width, headDim) !== headDim)
    throw f.unsupported('keys and values of different widths')
  const nCtxTrain = f.count('context_length', MOST.tokens)
  const shape = {
    arch: 'llama',
    nLayer: f.count('block_count', MOST.layers),
    nEmbd,
    nHead,
    nHeadKv: f.count('attention.head_count_kv', MOST.heads, nHead),
    headDim,
    nFf: f.count('feed_forward_length', MOST.width),
    nVocab: f.count('vocab_size', MOST.vocab, Array.isArray(tokens) ? tokens.length : undefined),
    nCtxTrain,
  }
  const sharing = sharingOf(f, 'attention.', shape.nLayer)
  const nDims = f.count('rope.dimension_count', headDim, headDim)
  const rope: Rope = {
    mode: 0,
    nDims,
    freqBase: f.positive('rope.freq_base', 10_000),
    nCtxTrain,
    scaling: ggufScaling(f, nCtxTrain),
  }
  const tiedOutput = !source.tensors.has('output.weight')
  return checked(f, {
    shape: { ...shape, ...sharing },
    normEps: f.positive('attention.layer_norm_rms_epsilon'),
    rope,
    tiedOutput,
  })
}

function ggufScaling(f: Fields, nCtxTrain: number): RopeScaling {
  const factor = f.positive('rope.scaling.factor', f.positive('rope.scale_linear', 1))
  const type = f.text('rope.scaling.type') ?? 'linear'
  if (type === 'none' || (type === 'linear' && factor === 1)) return { type: 'none' }
  if (type === 'linear') return { type, factor }
  if (type !== 'yarn') throw f.unsupported(`RoPE scaling '${type}'`)
  return {
    type,
    factor,
    nCtxOrig: f.count('rope.scaling.original_context_length', MOST.tokens, nCtxTrain),
    attnFactor: f.positive('rope.scaling.attn_factor', 1),
    betaFast: f.positive('rope.scaling.yarn_beta_fast', 32),
    betaSlow: f.positive('rope.scaling.yarn_beta_slow', 1),
  }
}

function fromConfig(source: WeightSource): Hyperparameters {
  const f = new Fields(source)
  const activation = f.text('hidden_act') ?? 'silu'
  if (activation !== 'silu') throw f.unsupported(`activation '${activation}'`)
  const nHead = f.count('num_attention_heads', MOST.heads)
  const nEmbd = f.count('hidden_size', MOST.width)
  // LCKV's config has the window for layers that slide, which `layer_types` would name.
  const isLckv = f.text('model_type') === 'lckv-llama'
  const nCtxTrain = Math.min(
    f.count('max_position_embeddings', MOST.tokens, 2048),
    isLckv ? MOST.tokens : f.count('sliding_window', MOST.tokens, MOST.tokens),
  )
  const shape = {
    arch: 'llama',
    nLayer: f.count('num_hidden_layers', MOST.layers),
    nEmbd,
    nHead,
    nHeadKv: f.count('num_key_value_heads', MOST.heads, nHead),
    headDim: f.count('head_dim', MOST.width, nEmbd / nHead),
    nFf: f.count('intermediate_size', MOST.width),
    nVocab: f.count('vocab_size', MOST.vocab),
    nCtxTrain,
  }
  const sharing = isLckv ? sharingOf(f, '', shape.nLayer) : {}
  // Newer configs hold everything about RoPE in one object.
  const r = f.get('rope_parameters') === undefined ? f.object('rope_scaling') : f.object('rope_parameters')
  const freqBase = f.positive('rope_theta', r.positive('rope_theta', 10_000))
  const rope: Rope = { mode: 2, nDims: shape.headDim, freqBase, nCtxTrain, scaling: configScaling(r, nCtxTrain) }
  const tiedOutput = f.flag('tie_word_embeddings')
  return checked(f, { shape: { ...shape, ...sharing }, normEps: f.positive('rms_norm_eps', 1e-6), rope, tiedOutput })
}

function configScaling(r: Fields, nCtxTrain: number): RopeScaling {
  const type = r.text('rope_type') ?? r.text('type') ?? 'default'
  const nCtxOrig = r.count('original_max_position_embeddings', MOST.tokens, nCtxTrain)
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

function checked(f: Fields, hp: Hyperparameters): Hyperparameters {
  const { nHead, nHeadKv, headDim } = hp.shape
  if (nHead % nHeadKv !== 0) throw f.unsupported(`${nHead} heads do not share ${nHeadKv} KV heads evenly`)
  if (!Number.isInteger(headDim) || headDim % 8 !== 0)
    throw f.unsupported(`a head of ${headDim} elements (a multiple of 8 is needed)`)
  if (hp.rope.nDims % 2 !== 0) throw f.unsupported(`rotating ${hp.rope.nDims} elements of a head`)
  return hp
}

/** The tensors of a model, declared by the names of its file. */
export function llamaWeights(hp: Hyperparameters, source: WeightSource, up: TensorSource): LlamaWeights {
  const { nLayer, nEmbd, nHead, nHeadKv, headDim, nFf, nVocab } = hp.shape
  const gguf = source.format === 'gguf'
  const name = (il: number, ours: string, theirs: string) => (gguf ? `blk.${il}.${ours}` : `model.layers.${il}.${theirs}`)
  const linear = (at: string, nIn: number, nOut: number): Linear => ({
    weight: up.matrix(`${at}.weight`, nIn, nOut),
    bias: up.has(`${at}.bias`) ? up.vector(`${at}.bias`, nOut) : null,
  })
  const norm = (at: string): RmsNorm => ({ weight: up.vector(`${at}.weight`, nEmbd), eps: hp.normEps })
  const rope = ropeParams(hp.rope)
  const ropeFactors = factors(hp.rope, up)

  /** A projection that layers which read another layer's keys and values lack; asking for it is an error. */
  const own = (il: number, ours: string, theirs: string): (() => Linear) => {
    const isThere = (hp.shape.sharing?.reads[il] ?? il) === il
    const made = isThere ? linear(name(il, ours, theirs), nEmbd, nHeadKv * headDim) : null
    return () => {
      if (made === null) throw new Error(`layer ${il} has no ${theirs}`)
      return made
    }
  }

  const embedding = gguf ? 'token_embd.weight' : 'model.embed_tokens.weight'
  const tokenEmbedding = up.rows(embedding, nEmbd, nVocab)
  const attention = (il: number): AttentionLayer => {
    const q = linear(name(il, 'attn_q', 'self_attn.q_proj'), nEmbd, nHead * headDim)
    const k = own(il, 'attn_k', 'self_attn.k_proj')
    const v = own(il, 'attn_v', 'self_attn.v_proj')
    const output = linear(name(il, 'attn_output', 'self_attn.o_proj'), nHead * headDim, nEmbd)
    return {
      ...{ il, q, output, rope, ropeFactors },
      get k() {
        return k()
      },
      get v() {
        return v()
      },
    }
  }
  const layers: LlamaLayer[] = Array.from({ length: nLayer }, (_, il) => ({
    attentionNorm: norm(name(il, 'attn_norm', 'input_layernorm')),
    attention: attention(il),
    mlpNorm: norm(name(il, 'ffn_norm', 'post_attention_layernorm')),
    mlp: {
      gate: linear(name(il, 'ffn_gate', 'mlp.gate_proj'), nEmbd, nFf),
      up: linear(name(il, 'ffn_up', 'mlp.up_proj'), nEmbd, nFf),
      down: linear(name(il, 'ffn_down', 'mlp.down_proj'), nFf, nEmbd),
    },
  }))
  const outputNorm = norm(gguf ? 'output_norm' : 'model.norm')
  const output = up.matrix(hp.tiedOutput ? embedding : gguf ? 'output.weight' : 'lm_head.weight', nEmbd, nVocab)

  return { tokenEmbedding, layers, outputNorm, output }
}

function build(hp: Hyperparameters, source: WeightSource, up: Uploader): Model {
  const { tokenEmbedding, layers, outputNorm, output } = llamaWeights(hp, source, up)
  const { nLayer } = hp.shape

  return {
    layers,
    forward({ g, cycles = [] }, { tokens, outputs }, attend) {
      const run = (il: number, x: Tensor): Tensor => {
        const { attentionNorm, attention, mlpNorm, mlp } = layers[il]!
        let attended = attend(attention, rmsNorm(g, attentionNorm, x))
        if (il === nLayer - 1) {
          if (outputs === null) return x
          if (attended) attended = g.getRows(attended, outputs)
          x = g.getRows(x, outputs)
        }
        if (attended) x = g.add(attended, x)
        return g.add(gatedMlp(g, mlp, rmsNorm(g, mlpNorm, x)), x)
      }
      const x = throughLayers(nLayer, cycles, { x: g.getRows(tokenEmbedding, tokens), run }) // [nEmbd, nTokens]
      return outputs === null ? null : g.mulMat(output, rmsNorm(g, outputNorm, x))
    },
  }
}

/** Llama 3's frequency divisors: GGUF files carry them, configs only the numbers they come from. */
function factors(rope: Rope, up: TensorSource): Tensor | null {
  if (up.has('rope_freqs.weight')) return up.vector('rope_freqs.weight', rope.nDims / 2)
  return rope.scaling.type === 'llama3' ? up.constant(llama3Factors(rope, rope.scaling)) : null
}
