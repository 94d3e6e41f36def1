/**
 * Llama (1, 2, 3), Mistral, TinyLlama, SmolLM: RMSNorm, rotary attention with shared KV heads, gated feed-forward; and LCKV's
 * models, whose layers read each other's keys and values.
 *
 * GGUF files interleave the rows of Wq and Wk so that neighbouring pairs are rotated; Hugging Face files rotate the two
 * halves of a head. The weights are used as they lie, and the rotation follows the file.
 */
import { decoderArchitecture } from './decoder-architecture.ts'
import type { DecoderSpec } from './decoder-spec.ts'
import { MOST } from './decoder-shape.ts'
import { sharingOf } from './layer-sharing.ts'
import type { Architecture } from './architecture.ts'

const LCKV = 'lckv-llama'

export const LLAMA: DecoderSpec = {
  gguf: 'llama',
  huggingface: ['llama', 'mistral', LCKV],
  ropeMode: { gguf: 0, huggingface: 2 },
  more({ f, isGguf, nLayer, nCtxTrain }) {
    if (isGguf) return { shape: sharingOf(f, 'attention.', nLayer) }
    if (f.text('model_type') === LCKV) return { shape: sharingOf(f, '', nLayer) }
    // Mistral's window is served up to its width, where all is as without one.
    return { shape: { nCtxTrain: Math.min(nCtxTrain, f.count('sliding_window', MOST.tokens, MOST.tokens)) } }
  },
}

export const llama: Architecture = decoderArchitecture(LLAMA)
