/** The hyper-parameters of a decoder-only model, from GGUF's metadata or Hugging Face's config. */
import { layerShapes, type ModelShape } from '../core/shape.ts'
import type { Rope } from '../nn/rope.ts'
import type { WeightSource } from '../weights/source.ts'
import type { DecoderSpec, Said } from './decoder-spec.ts'
import { Fields } from './hyperparameters.ts'
import type { Hyperparameters } from './architecture.ts'
import { configScaling, ggufScaling } from './rope-scaling.ts'

/** Limits that only a damaged file exceeds. */
export const MOST = { layers: 1024, width: 2 ** 20, heads: 4096, tokens: 2 ** 30, vocab: 2 ** 24 } as const

export function decoderHyperparameters(spec: DecoderSpec, source: WeightSource): Hyperparameters {
  const read = source.format === 'gguf' ? fromGguf(spec, source) : fromConfig(spec, source)
  const { said, rope } = read
  spec.check?.(said)
  const more = spec.more?.(said)
  const shape = { ...read.shape, ...more?.shape }
  const { f } = said
  const { nHead, nHeadKv, headDim } = shape
  if (nHead % nHeadKv !== 0) throw f.unsupported(`${nHead} heads do not share ${nHeadKv} KV heads evenly`)
  if (!Number.isInteger(headDim) || headDim % 8 !== 0)
    throw f.unsupported(`a head of ${headDim} elements (a multiple of 8 is needed)`)
  if (rope && rope.nDims % 2 !== 0) throw f.unsupported(`rotating ${rope.nDims} elements of a head`)
  return {
    shape: { ...shape, layers: layerShapes(shape, spec.layers?.(said)) },
    normEps: read.normEps,
    rope,
    ...(rope && spec.windowRope && { windowRope: spec.windowRope(said, rope) }),
    tiedOutput: read.tiedOutput,
    softcap: more?.softcap ?? null,
  }
}

interface Read extends Pick<Hyperparameters, 'normEps' | 'rope' | 'tiedOutput'> {
  readonly said: Said
  readonly shape: Omit<ModelShape, 'layers'>
}

function fromGguf(spec: DecoderSpec, source: WeightSource): Read {
  const f = new Fields(source, `${spec.gguf}.`)
  if (f.get('expert_count') !== undefined && f.get('expert_count') !== 0) throw f.unsupported('mixtures of experts')
  const tokens = source.metadata('tokenizer.ggml.tokens')
  const nHead = f.count('attention.head_count', MOST.heads)
  const nEmbd = f.count('embedding_length', MOST.width)
  const headDim = f.count('attention.key_length', MOST.width, nEmbd / nHead)
  if (f.count('attention.value_length', MOST.width, headDim) !== headDim)
    throw f.unsupported('keys and values of different widths')
  const nCtxTrain = f.count('context_length', MOST.tokens)
  const nLayer = f.count('block_count', MOST.layers)
  const shape = {
    ...{ arch: spec.gguf, nLayer, nEmbd, nHead, headDim, nCtxTrain },
    nHeadKv: f.count('attention.head_count_kv', MOST.heads, nHead),
    nFf: f.count('feed_forward_length', MOST.width),
    nVocab: f.count('vocab_size', MOST.vocab, Array.isArray(tokens) ? tokens.length : undefined),
  }
  const rope: Rope | null = spec.ropeMode && {
    mode: spec.ropeMode.gguf,
    nDims: f.count('rope.dimension_count', headDim, headDim),
    freqBase: f.positive('rope.freq_base', 10_000),
    nCtxTrain,
    scaling: ggufScaling(f, nCtxTrain),
  }
  const normEps = f.positive(spec.eps?.gguf ?? 'attention.layer_norm_rms_epsilon')
  const tiedOutput = !source.tensors.has('output.weight')
  return { shape, normEps, rope, tiedOutput, said: { f, source, isGguf: true, ...shape } }
}

function fromConfig(spec: DecoderSpec, source: WeightSource): Read {
  const { nFf = 'intermediate_size', activation = 'hidden_act', defaults = {}, tiedByDefault = false } = spec.config ?? {}
  const whole = new Fields(source)
  const f =
    typeof source.metadata('text_config') === 'object' && source.metadata('text_config') !== null
      ? whole.object('text_config')
      : whole
  const names = spec.activationNames ?? ['silu']
  const act = f.text(activation) ?? names[0]!
  if (!names.includes(act)) throw f.unsupported(`activation '${act}'`)
  const count = (key: string, most: number, fallback?: number) => f.count(key, most, defaults[key] ?? fallback)
  const nHead = count('num_attention_heads', MOST.heads)
  const nEmbd = count('hidden_size', MOST.width)
  const headDim = count('head_dim', MOST.width, nEmbd / nHead)
  const nCtxTrain = count('max_position_embeddings', MOST.tokens, 2048)
  const nLayer = count('num_hidden_layers', MOST.layers)
  const shape = {
    ...{ arch: spec.gguf, nLayer, nEmbd, nHead, headDim, nCtxTrain },
    nHeadKv: count('num_key_value_heads', MOST.heads, nHead),
    nFf: count(nFf, MOST.width),
    nVocab: count('vocab_size', MOST.vocab),
  }
  // Newer configs hold everything about RoPE in one object, or in one for each kind of layer.
  const all = f.get('rope_parameters') === undefined ? f.object('rope_scaling') : f.object('rope_parameters')
  const r = all.get('full_attention') === undefined ? all : all.object('full_attention')
  const freqBase = f.positive('rope_theta', r.positive('rope_theta', defaults['rope_theta'] ?? 10_000))
  const rope: Rope | null = spec.ropeMode && {
    ...{ mode: spec.ropeMode.huggingface, nDims: headDim, freqBase, nCtxTrain },
    scaling: configScaling(r, nCtxTrain),
  }
  const normEps = spec.eps?.config ?? f.positive('rms_norm_eps', 1e-6)
  const tied = f.get('tie_word_embeddings') ?? whole.get('tie_word_embeddings') ?? tiedByDefault
  return { shape, normEps, rope, tiedOutput: tied === true, said: { f, source, isGguf: false, ...shape } }
}
