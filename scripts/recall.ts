/**
 * How well facts hidden in a long text are found under each setting of attention: prints markdown.
 * `npx tsx scripts/recall.ts [tokens,…] [texts] [settings] [options]`: lengths of the texts, how many of each, and a pattern for
 * the settings of the table below besides dense (default 512,1024,2048, 12, and all).
 *
 *   --attention SETTING  a setting besides; may be repeated. Without a pattern, only these
 *   -m MODEL             the model (default: the bundled one)
 *   --base BASE          a model of the same tokenizer that answers, densely, for the row of dense in place of MODEL; without
 *                        a pattern, MODEL as it is and the settings given are compared with it
 *
 * Texts are paragraphs the model never saw with a fact in about every 64 tokens. Of each text several facts are asked, every
 * setting the same ones; an answer counts if it says all of the fact. "Early" facts stand in the first half of a text.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { load, type Model } from '../src/index.ts'
import { type Fact, paragraphsOf, textWithFacts } from './facts.ts'

const QUESTIONS = 8

interface Case {
  readonly document: string
  readonly asked: readonly { readonly fact: Fact; readonly isEarly: boolean }[]
}

/** Settings for a text of `T` tokens; shares are of the keys that dense attention reads for its last token. */
function settings(T: number): [string, string | object][] {
  const shares = [2, 4, 8].map((part) => [part, Math.floor(T / part)] as const)
  const hip = (n: number, more: object = {}) => ({ method: 'hip', k: Math.floor(n / 2), window: Math.floor(n / 2), ...more })
  const sparq = (n: number) => ({ method: 'sparq', r: 16, k: n, from: 0 })
  const streaming = (n: number) => ({ method: 'streaming', sink: 4, window: n - 4 })
  const h2o = (n: number) => ({ method: 'h2o', budget: n })
  const [half, quarter] = [Math.floor(T / 2), Math.floor(T / 4)]
  return [
    ['dense', 'dense'],
    ...shares.map(([part, n]): [string, object] => [`streaming, 1/${part}`, streaming(n)]),
    ...shares.map(([part, n]): [string, object] => [`h2o, 1/${part}`, h2o(n)]),
    ...shares.map(([part, n]): [string, object] => [`sparq r 16, 1/${part}`, sparq(n)]),
    ...shares.map(([part, n]): [string, object] => [`hip, 1/${part}`, hip(n)]),
    ['hip, 2 dense layers, 1/4', hip(quarter, { dense_layers: 2 })],
    ['hip, 1 dense layer, 1/4', hip(quarter, { dense_layers: 1 })],
    ['hip, no dense layers, 1/4', hip(quarter, { dense_layers: 0 })],
    ['streaming, 1/2 + sparq r 16, 1/4', [streaming(half), sparq(quarter)]],
    ['h2o, 1/2 + hip, 1/4', [h2o(half), hip(quarter)]],
  ]
}

function makeCase(model: Model, paragraphs: readonly string[], { T, seed }: { T: number; seed: number }): Case {
  const { document, facts } = textWithFacts(paragraphs, {
    nTokens: T - 32, // the rest is for the question and the template
    countTokens: (line) => model.countTokens(line),
    seed,
  })
  const asked = Array.from({ length: QUESTIONS }, (_, i) => Math.floor(((i + 0.5) * facts.length) / QUESTIONS))
  return { document, asked: asked.map((i) => ({ fact: facts[i]!, isEarly: i < facts.length / 2 })) }
}

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    attention: { type: 'string', multiple: true, default: [] },
    model: { type: 'string', short: 'm' },
    base: { type: 'string' },
  },
})
const lengths = (positionals[0] ?? '512,1024,2048').split(',').map(Number)
const nTexts = Number(positionals[1] ?? 12)
const isOwnTable = given.attention.length === 0 && given.base === undefined
const pattern = new RegExp(positionals[2] ?? (isOwnTable ? '.' : '^$'))
const besides = given.attention.map((setting): [string, string] => [setting, setting])
const paragraphs = paragraphsOf(readFileSync(new URL('../models/text/heldout.txt', import.meta.url), 'utf8'))

await using model = await load(given.model, { nThreads: 1 })
await using base = given.base === undefined ? null : await load(given.base, { nThreads: 1 })
if (base) besides.unshift(['as the model is', 'dense'])
for (const T of lengths) {
  const cases = Array.from({ length: nTexts }, (_, i) => makeCase(model, paragraphs, { T, seed: 1000 * T + i }))
  console.log(`\n${T} tokens, ${nTexts * QUESTIONS} questions\n`)
  console.log(
    '| setting | recall | early | late | against dense | found by one only (this, dense) | keys read |\n| --- | --: | --: | --: | --: | --: | --: |',
  )
  let dense: boolean[] = []
  const [reference, ...table] = settings(T)
  const chosen = table.filter(([name]) => pattern.test(name))
  for (const row of [reference!, ...chosen, ...besides]) {
    const [name, attention] = row
    const answerer = row === reference && base ? base : model
    const right: boolean[] = []
    const early: boolean[] = []
    let density = 0
    for (const { document, asked } of cases) {
      for (const { fact, isEarly } of asked) {
        const messages = [{ role: 'user' as const, content: `${document}\n${fact.question}` }]
        const { text, usage } = await answerer.complete({
          messages,
          attention: attention as string,
          temperature: 0,
          maxTokens: 32,
        })
        right.push(text.includes(fact.answer))
        early.push(isEarly)
        density += usage.attention.density
      }
    }
    if (name === 'dense') dense = right
    const share = (keep: (i: number) => boolean) => {
      const some = right.filter((_, i) => keep(i))
      return some.filter(Boolean).length / some.length
    }
    const percent = (x: number) => (100 * x).toFixed(1)
    const all = share(() => true)
    const onlyHere = right.filter((r, i) => r && !dense[i]).length
    const onlyDense = right.filter((r, i) => !r && dense[i]).length
    const cells = [
      name,
      percent(all),
      percent(share((i) => early[i]!)),
      percent(share((i) => !early[i]!)),
      percent(all - dense.filter(Boolean).length / dense.length),
      `${onlyHere}, ${onlyDense}`,
      `${percent(density / right.length)} %`,
    ]
    console.log(`| ${cells.join(' | ')} |`)
  }
}
