/**
 * How well we agree with libllama, over models, types and ways of reading: prints a markdown table.
 * `npx tsx scripts/agreement.ts [full]`: the bundled model and a few layers of each synth shape (minutes), or all layers and
 * the whole vocabulary (an hour on two cores, and files of some GB in the folder for temporary files).
 *
 * The rows "libllama -fa 0" compare libllama with itself, with and without flash attention: differences in the last bit of a
 * sum change which of two neighbouring 8-bit values an activation is rounded to, so quantised models amplify them. That is
 * the noise below which two correct programs cannot be told apart.
 */
import { rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { SYNTH_SHAPES } from '../src/weights/synth-shapes.ts'
import { synthesize, type SynthType } from '../src/weights/synth.ts'
import { BUNDLED_GGUF, heldoutTokens } from '../test/support/bundled.ts'
import { isComparable } from '../test/support/known.ts'
import { type Ftype, quantize, referenceLogits, TemporaryFolder } from '../test/support/reference.ts'
import { agreement, compare } from '../test/support/runner.ts'
import { printHead, printRow } from './agreement-table.ts'

const N_TOKENS = 2049
const F32 = 0
const full = process.argv[2] === 'full'
const nThreads = availableParallelism()
const tokens = heldoutTokens(N_TOKENS)
using folder = new TemporaryFolder()

printHead()

for (const ftype of ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k_s', 'q4_k_m', 'q6_k'] satisfies Ftype[]) {
  const path = folder.file(`${ftype}.gguf`)
  quantize(BUNDLED_GGUF, path, ftype)
  printRow('kvasir-demo', ftype, 'steps of 512', await agreement(path, tokens, { nThreads }))
  printRow('kvasir-demo', ftype, 'steps of 1', await agreement(path, tokens, { nThreads, nUbatch: 1 }))
  const exact = { nThreads, nUbatch: 1, cacheType: F32, flashAttention: 'off' } as const
  printRow('kvasir-demo', ftype, 'steps of 1, f32 cache, -fa 0', await agreement(path, tokens, exact))
  const [on, off] = (['on', 'off'] as const).map((flashAttention) => referenceLogits(path, tokens, { nThreads, flashAttention }))
  printRow('kvasir-demo', ftype, 'libllama -fa 0', compare(tokens, off!, on!))
}

for (const like of SYNTH_SHAPES.keys()) {
  if (!isComparable(like)) continue
  for (const type of ['f16', 'q8_0', 'q4_0', 'q4_k'] satisfies SynthType[]) {
    const out = folder.file(`${like}-${type}.gguf`)
    const layers = like === 'llama-7b' ? 4 : undefined
    const few = like === 'llama-7b' ? 1 : like.startsWith('gemma') ? 6 : 2 // Gemma's sixth layer is the first that does not slide
    const size = full ? { layers } : { layers: few, vocab: 4096 }
    await synthesize({ like, type, out, tokenizerFrom: BUNDLED_GGUF, ...size })
    const name = size.layers === undefined ? like : `${like}, layers: ${size.layers}`
    printRow(name, type, 'steps of 512', await agreement(out, tokens, { nThreads }))
    rmSync(out)
  }
}
