/** The tensors of a decoder-only model, found by the names of its file. */
import type { Tensor } from '../ggml/tensor.ts'
import type { Linear } from '../nn/linear.ts'
import type { Norm } from '../nn/norm.ts'
import { llama3Factors, type Rope, ropeParams } from '../nn/rope.ts'
import type { WeightSource } from '../weights/source.ts'
import type { TensorSource } from '../weights/upload.ts'
import { type Decoder, decoderAttention, type DecoderLayer } from './decoder.ts'
import type { DecoderSpec, TensorNames } from './decoder-spec.ts'
import type { Hyperparameters } from './architecture.ts'

/** GGUF's names, the same for every architecture; what stands behind `layer` belongs to one. */
const GGUF_NAMES: TensorNames = {
  embedding: 'token_embd',
  positions: 'position_embd',
  layer: 'blk',
  attentionNorm: 'attn_norm',
  q: 'attn_q',
  k: 'attn_k',
  v: 'attn_v',
  attentionOutput: 'attn_output',
  qNorm: 'attn_q_norm',
  kNorm: 'attn_k_norm',
  attentionPostNorm: 'post_attention_norm',
  mlpNorm: 'ffn_norm',
  gate: 'ffn_gate',
  up: 'ffn_up',
  down: 'ffn_down',
  mlpPostNorm: 'post_ffw_norm',
  outputNorm: 'output_norm',
  output: 'output',
}

/** Those of Hugging Face's Llama, which most others follow. */
const HUGGINGFACE_NAMES: TensorNames = {
  embedding: 'embed_tokens',
  positions: 'embed_positions',
  layer: 'layers',
  attentionNorm: 'input_layernorm',
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  attentionOutput: 'self_attn.o_proj',
  qNorm: 'self_attn.q_norm',
  kNorm: 'self_attn.k_norm',
  attentionPostNorm: 'post_attention_layernorm',
  mlpNorm: 'post_attention_layernorm',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
  mlpPostNorm: 'post_feedforward_layernorm',
  outputNorm: 'norm',
  output: 'lm_head',
}

/** Declares the tensors; they can be used once the uploader has placed them. */
export function decoderWeights(spec: DecoderSpec, hp: Hyperparameters, source: WeightSource, up: TensorSource): Decoder {
  const { nEmbd, nFf, nVocab, nPositions, layers: shapes } = hp.shape
  const isGguf = source.format === 'gguf'
  const names = isGguf ? GGUF_NAMES : { ...HUGGINGFACE_NAMES, ...spec.names }
  const prefixes = isGguf ? [''] : (spec.prefixes ?? ['model.'])
  const prefix = prefixes.find((text) => up.has(`${text}${names.embedding}.weight`)) ?? prefixes[0]!
  const isCentred = spec.norm === 'layer'

  const linear = (at: string, nIn: number, nOut: number): Linear => ({
    weight: up.matrix(`${at}.weight`, nIn, nOut),
    bias: up.has(`${at}.bias`) ? up.vector(`${at}.bias`, nOut) : null,
  })
  const norm = (at: string, width = nEmbd): Norm => ({
    weight: up.vector(`${at}.weight`, width, isGguf ? 0 : spec.normOffset),
    bias: up.has(`${at}.bias`) ? up.vector(`${at}.bias`, width) : null,
    eps: hp.normEps,
    isCentred,
  })
  const rotation = ropes(up)

  const layer = (il: number): DecoderLayer => {
    const shape = shapes[il]!
    const at = (name: string) => `${prefix}${names.layer}.${il}.${name}`
    const { nHead, nHeadKv, dK, dV } = shape
    const isOwner = shape.kvSource === il
    return {
      attention: decoderAttention(shape, {
        q: linear(at(names.q), nEmbd, nHead * dK),
        k: isOwner ? linear(at(names.k), nEmbd, nHeadKv * dK) : null,
        v: isOwner ? linear(at(names.v), nEmbd, nHeadKv * dV) : null,
        output: linear(at(names.attentionOutput), nHead * dV, nEmbd),
        qNorm: spec.headNorms ? norm(at(names.qNorm), dK) : null,
        kNorm: spec.headNorms ? norm(at(names.kNorm), dK) : null,
        sinks: null,
        ...rotation(typeof shape.visible === 'object' ? (hp.windowRope ?? hp.rope) : hp.rope),
      }),
      attentionNorm: norm(at(names.attentionNorm)),
      attentionPostNorm: spec.postNorms ? norm(at(names.attentionPostNorm)) : null,
      mlp: {
        gate: spec.gated === false ? null : linear(at(names.gate), nEmbd, nFf),
        up: linear(at(names.up), nEmbd, nFf),
        down: linear(at(names.down), nFf, nEmbd),
        activation: spec.activation ?? 'silu',
      },
      mlpNorm: norm(at(names.mlpNorm)),
      mlpPostNorm: spec.postNorms ? norm(at(names.mlpPostNorm)) : null,
    }
  }

  const embedding = `${prefix}${names.embedding}.weight`
  return {
    tokenEmbedding: up.rows(embedding, nEmbd, nVocab),
    embeddingScale: spec.embeddingScale?.(hp.shape) ?? 1,
    positionEmbedding:
      nPositions === undefined
        ? null
        : up.rows(`${prefix}${names.positions}.weight`, nEmbd, nPositions, isGguf ? 0 : spec.unusedPositions),
    layers: shapes.map(({ il }) => layer(il)),
    outputNorm: norm(`${prefix}${names.outputNorm}`),
    output: up.matrix(hp.tiedOutput ? embedding : `${names.output}.weight`, nEmbd, nVocab),
    softcap: hp.softcap ?? null,
  }
}

/** The rotation of layers; frequency divisors are placed once for each way of rotating. */
function ropes(up: TensorSource) {
  const known = new Map<Rope, Tensor | null>()
  return (rope: Rope | null) => {
    if (rope === null) return { rope: null, ropeFactors: null }
    const found = known.get(rope)
    const ropeFactors = found === undefined ? factors(rope, up) : found
    known.set(rope, ropeFactors)
    return { rope: ropeParams(rope), ropeFactors }
  }
}

/** Llama 3's frequency divisors: GGUF files carry them, configs only the numbers they come from. */
function factors(rope: Rope, up: TensorSource): Tensor | null {
  if (up.has('rope_freqs.weight')) return up.vector('rope_freqs.weight', rope.nDims / 2)
  return rope.scaling.type === 'llama3' ? up.constant(llama3Factors(rope, rope.scaling)) : null
}
