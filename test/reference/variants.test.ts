import { afterAll, describe, expect, it } from 'vitest'
import { openGguf } from '../../src/weights/gguf.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../support/bundled.ts'
import { type Edits, editGguf } from '../support/edit-gguf.ts'
import { referenceLogits, TemporaryFolder } from '../support/reference.ts'
import { compare, runnerLogits } from '../support/runner.ts'

const folder = new TemporaryFolder()
afterAll(() => folder[Symbol.dispose]())

const tokens = heldoutTokens(769)
const unchanged = referenceLogits(BUNDLED_GGUF, tokens)

const u32 = (value: number) => ({ kind: 'u32', value }) as const
const f32 = (value: number) => ({ kind: 'f32', value }) as const
const str = (value: string) => ({ kind: 'str', value }) as const

const yarn = {
  'llama.rope.scaling.type': str('yarn'),
  'llama.rope.scaling.factor': f32(4),
  'llama.rope.scaling.original_context_length': u32(512),
}

/** The same wave for every vector, large enough to matter beside activations of a trained model. */
const wave = (n: number, phase: number) => Float32Array.from({ length: n }, (_, i) => 0.3 * Math.sin(i + phase))

/** Biases named `blk.N.NAME.bias` in every layer; names give the matrix they go with. */
function biases(...names: string[]): Record<string, Float32Array> {
  using source = openGguf(BUNDLED_GGUF)
  const matrices = [...source.tensors.values()].filter(({ name }) => names.includes(name.split('.')[2]!))
  return Object.fromEntries(matrices.map(({ name, ne }, i) => [name.replace('.weight', '.bias'), wave(ne[1], i)]))
}

const VARIANTS: Record<string, Edits> = {
  'linear RoPE scaling': {
    metadata: { 'llama.rope.scaling.type': str('linear'), 'llama.rope.scaling.factor': f32(4) },
  },
  'linear RoPE scaling under its old name': { metadata: { 'llama.rope.scale_linear': f32(4) } },
  YaRN: { metadata: yarn },
  'YaRN without an original context': {
    metadata: { 'llama.rope.scaling.type': str('yarn'), 'llama.rope.scaling.factor': f32(8), 'llama.context_length': u32(256) },
  },
  'YaRN with its own attention factor': { metadata: { ...yarn, 'llama.rope.scaling.attn_factor': f32(1.5) } },
  "Llama 3's frequency factors": {
    vectors: { 'rope_freqs.weight': Float32Array.from({ length: 16 }, (_, i) => (i < 6 ? 1 : i < 10 ? 1 + 0.7 * (i - 5) : 8)) },
  },
  'another RoPE base': { metadata: { 'llama.rope.freq_base': f32(10_000) } },
  'attention biases': { vectors: biases('attn_q', 'attn_k', 'attn_v', 'attn_output') },
  'feed-forward biases': { vectors: biases('ffn_gate', 'ffn_up', 'ffn_down') },
  'another epsilon': { metadata: { 'llama.attention.layer_norm_rms_epsilon': f32(0.05) } },
}

describe('a model with', () => {
  it.each(Object.entries(VARIANTS))('%s agrees with libllama, and differs from one without', async (name, edits) => {
    const path = folder.file(`${name.replaceAll(' ', '-')}.gguf`)
    await editGguf(BUNDLED_GGUF, path, edits)
    const ours = await runnerLogits(path, tokens)
    const { top1, meanDelta } = compare(tokens, ours, referenceLogits(path, tokens))
    expect(top1).toBeGreaterThanOrEqual(0.995)
    expect(meanDelta).toBeLessThanOrEqual(0.01)
    expect(compare(tokens, ours, unchanged).meanDelta).toBeGreaterThan(0.05)
  })
})
