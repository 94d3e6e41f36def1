/** The walk-through of docs/add-a-method.md, as a reader would follow it: its code compiles, conforms, and is what it says. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import type { AnyMethod } from '../../src/attention/method.ts'
import { METHODS } from '../../src/attention/registry.ts'
import { F32 } from '../../src/ggml/types.ts'
import { TestLayer } from '../support/attention-layer.ts'
import { relativeError, TOLERANCE } from '../support/close.ts'
import { conforms, settingsOf } from '../support/conformance.ts'
import { N_EMBD, type TestShape } from '../support/layer-shape.ts'
import { OPTIONS } from '../support/method-options.ts'
import { normals } from '../support/random.ts'

const page = readFileSync('docs/add-a-method.md', 'utf8')
const [, code] = /```ts\n(.*?)```/s.exec(page)!

// Inside the project, so that imports and compiler options are the project's.
const folder = mkdtempSync('.walkthrough-')
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'tova.ts')
writeFileSync(file, code!.replaceAll("from './", "from '../src/attention/keep/"))
writeFileSync(join(folder, 'tsconfig.json'), '{ "extends": "../tsconfig.json", "include": ["*.ts"] }')
const { tova } = (await import(/* @vite-ignore */ pathToFileURL(file).href)) as { tova: AnyMethod }
const methods = [...METHODS, tova]

describe('the walk-through', () => {
  it('is short', () => {
    expect(page.trimEnd().split('\n').length).toBeLessThan(60)
    expect(code!.trimEnd().split('\n').length).toBeLessThanOrEqual(30)
  })

  it('has types', () => expect(() => execFileSync('npx', ['tsc', '-p', folder])).not.toThrow())

  it.each<TestShape>([
    { nHead: 4, nHeadKv: 4, headDim: 32 },
    { nHead: 8, nHeadKv: 2, headDim: 64 },
    { nHead: 8, nHeadKv: 2, headDim: 64, sinks: true, differs: () => ({ softcap: 1, dV: 32 }) },
  ])('keeps what plain loops keep: $nHead heads on $nHeadKv', async (shape) => {
    const [nPrompt, T, budget] = [100, 130, 40]
    const x = normals(N_EMBD * T, 11)
    using layer = new TestLayer({ method: 'tova', budget }, shape, F32, methods)
    using cache = layer.newCache(256)
    const oracle = layer.oracle(x)
    let held = Array.from({ length: nPrompt - 1 }, (_, t) => t)
    const position = (t: number, h: number) => oracle.rotate(oracle.k[t]![Math.floor(h / (shape.nHead / shape.nHeadKv))]!, t)
    for (let at = 0; at < nPrompt;) {
      const n = Math.min(layer.attention.maxChunk(cache), nPrompt - at)
      await layer.attend([{ cache, x: x.subarray(at * N_EMBD, (at + n) * N_EMBD) }], at + n === nPrompt)
      at += n
    }
    for (let t = nPrompt - 1; t < T; t++) {
      if (t >= nPrompt) await layer.attend([{ cache, x: x.subarray(t * N_EMBD, (t + 1) * N_EMBD) }])
      held.push(t)
      const score = new Float64Array(held.length)
      for (let h = 0; h < shape.nHead; h++) {
        const p = oracle.probabilities(
          oracle.rotate(oracle.q[t]![h]!, t),
          held.map((key) => position(key, h)),
          h,
        )
        for (const [i, value] of p.entries()) score[i]! += value
      }
      const best = [...held.keys()].sort((a, b) => score[b]! - score[a]!).slice(0, budget)
      held = held.filter((_, i) => best.includes(i))
      const { rows } = cache.layers[0]!
      for (const map of rows) expect(Array.from({ length: map.nRows }, (_, rank) => map.position(map.row(rank)))).toEqual(held)
    }
  })

  it('stays dense while its budget lasts', async () => {
    const shape = { nHead: 8, nHeadKv: 2, headDim: 64 }
    using layer = new TestLayer({ method: 'tova', budget: 64 }, shape, F32, methods)
    using cache = layer.newCache(256)
    const x = normals(N_EMBD * 64, 3)
    const [actual] = await layer.attend([{ cache, x }])
    expect(relativeError(actual!, layer.oracle(x).dense())).toBeLessThan(TOLERANCE.f32)
  })
})

conforms(
  settingsOf(methods).filter((setting) => setting.includes(tova)),
  methods,
  { ...OPTIONS, tova: { exactFor: (budget) => ({ budget }), tightFor: (n) => ({ budget: Math.ceil(n / 4) }) } },
)
