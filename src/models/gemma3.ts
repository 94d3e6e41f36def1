/**
 * Gemma 3: five of six layers see a window of recent tokens, with a rotation of their own; queries and keys are normed head by head,
 * and so is what attention and feed-forward add; embeddings are multiplied by √nEmbd.
 */
import type { MetadataValue } from '../weights/source.ts'
import { decoderArchitecture } from './decoder-architecture.ts'
import type { Said } from './decoder-spec.ts'
import { MOST } from './decoder-shape.ts'
import type { Architecture } from './architecture.ts'

/** Every so manieth layer sees everything. */
const PATTERN = 6
const LOCAL_FREQ_BASE = 10_000
/** The 27B model's scale is not that of its heads, and files do not say so. */
const LAYERS_OF_27B = 62

export const gemma3: Architecture = decoderArchitecture({
  gguf: 'gemma3',
  huggingface: ['gemma3_text', 'gemma3'],
  ropeMode: { gguf: 2, huggingface: 2 },
  headNorms: true,
  postNorms: true,
  normOffset: 1,
  activation: 'gelu',
  activationNames: ['gelu_pytorch_tanh'],
  names: { mlpNorm: 'pre_feedforward_layernorm' },
  prefixes: ['model.', 'model.language_model.', 'language_model.model.'],
  config: {
    activation: 'hidden_activation',
    tiedByDefault: true,
    defaults: {
      ...{ vocab_size: 262_208, hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 26, num_attention_heads: 8 },
      ...{ num_key_value_heads: 4, head_dim: 256, max_position_embeddings: 131_072, rope_theta: 1e6 },
    },
  },
  embeddingScale: ({ nEmbd }) => Math.sqrt(nEmbd),
  layers(said) {
    const { f, isGguf, nLayer, nEmbd, nHead, headDim } = said
    const width = isGguf && nLayer === LAYERS_OF_27B ? nEmbd / nHead : headDim
    const scale = 1 / Math.sqrt(isGguf ? width : f.positive('query_pre_attn_scalar', 256))
    const key = isGguf ? 'attention.sliding_window' : 'sliding_window'
    const window = isGguf && !f.get(key) ? null : f.count(key, MOST.tokens, 4096)
    const slides = slidingLayers(said)
    return (il) => (window !== null && slides(il) ? { scale, visible: { window } } : { scale })
  },
  windowRope({ f, isGguf }, rope) {
    const said = f.object('rope_parameters').object('sliding_attention')
    if ((said.text('rope_type') ?? 'default') !== 'default') throw f.unsupported('RoPE scaling of layers with a window')
    const config = f.positive('rope_local_base_freq', said.positive('rope_theta', LOCAL_FREQ_BASE))
    return { ...rope, freqBase: isGguf ? f.positive('rope.freq_base_swa', LOCAL_FREQ_BASE) : config, scaling: { type: 'none' } }
  },
  more: ({ f }) => ({ softcap: f.get('final_logit_softcapping') ? f.positive('final_logit_softcapping') : null }),
  check({ f, source }) {
    if (f.get('attn_logit_softcapping')) throw f.unsupported('a softcap of attention scores')
    if (f.flag('use_bidirectional_attention')) throw f.unsupported('attention to later tokens')
    if (f.flag('attention_bias')) throw f.unsupported('biases of attention')
    if (f.text('rope.scaling.type') === 'yarn') throw f.unsupported("RoPE scaling 'yarn'")
    if (source.tensors.has('dense_2.weight')) throw f.unsupported('a model of embeddings')
  },
})

/** Which layers have a window, as the file lists them, or all but every sixth. */
function slidingLayers({ f, isGguf }: Said): (il: number) => boolean {
  const list: MetadataValue | undefined = f.get(isGguf ? 'attention.sliding_window_pattern' : 'layer_types')
  if (Array.isArray(list)) return (il) => list[il] === true || list[il] === 'sliding_attention'
  const period = isGguf ? list : f.get('sliding_window_pattern')
  if (period === 0) return () => true
  const n = typeof period === 'number' && Number.isInteger(period) ? period : PATTERN
  return (il) => (il + 1) % n !== 0
}
