/** OPT: positions are learned, LayerNorm and a feed-forward network of two matrices with ReLU, biases everywhere. */
import { decoderArchitecture } from './decoder-architecture.ts'
import type { Architecture } from './architecture.ts'

export const opt: Architecture = decoderArchitecture({
  gguf: 'opt',
  huggingface: ['opt'],
  ropeMode: null,
  norm: 'layer',
  eps: { gguf: 'attention.layer_norm_epsilon', config: 1e-5 },
  activation: 'relu',
  activationNames: ['relu'],
  gated: false,
  names: {
    attentionNorm: 'self_attn_layer_norm',
    attentionOutput: 'self_attn.out_proj',
    mlpNorm: 'final_layer_norm',
    up: 'fc1',
    down: 'fc2',
    outputNorm: 'final_layer_norm',
  },
  prefixes: ['model.decoder.', 'decoder.'],
  unusedPositions: 2,
  config: { nFf: 'ffn_dim', activation: 'activation_function', tiedByDefault: true },
  more: ({ nCtxTrain }) => ({ shape: { nPositions: nCtxTrain } }),
  check({ f, nEmbd }) {
    const wanted: Readonly<Record<string, unknown>> = {
      do_layer_norm_before: true,
      _remove_final_layer_norm: false,
      word_embed_proj_dim: nEmbd,
      enable_bias: true,
      layer_norm_elementwise_affine: true,
    }
    for (const [key, value] of Object.entries(wanted)) {
      const found = f.get(key)
      if (found !== undefined && found !== value) throw f.unsupported(`${key} is ${String(found)}`)
    }
  },
})
