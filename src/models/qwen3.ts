/** Qwen 3: Llama with queries and keys normed head by head before they are rotated, and heads of a width of their own. */
import { decoderArchitecture } from './decoder-architecture.ts'
import type { Architecture } from './architecture.ts'

export const qwen3: Architecture = decoderArchitecture({
  gguf: 'qwen3',
  huggingface: ['qwen3'],
  ropeMode: { gguf: 2, huggingface: 2 },
  headNorms: true,
  config: { defaults: { head_dim: 128, num_key_value_heads: 32, max_position_embeddings: 32_768 } },
  check({ f, isGguf }) {
    if (isGguf) return
    if (f.flag('use_sliding_window')) throw f.unsupported('layers of Qwen 3 with sliding windows')
    const types = f.get('layer_types')
    const other = Array.isArray(types) ? types.find((type) => type !== 'full_attention') : undefined
    if (other !== undefined) throw f.unsupported(`layers of type '${String(other)}'`)
  },
})
