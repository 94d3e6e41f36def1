/** Asks about facts hidden in a long text, and says what that cost. Run it with `npx tsx examples/04-long-document.ts`. */
import { readFileSync } from 'node:fs'
import { load } from 'kvasir'

const facts = [
  'The access code for the calm otter is 40412.',
  'Nora keeps the lamp in the dusty attic.',
  'The access code for the quiet falcon is 77310.',
]
const paragraphs = readFileSync(new URL('../models/text/heldout.txt', import.meta.url), 'utf8')
  .split('\n\n')
  .slice(20, 40)
const document = paragraphs.flatMap((text, i) => (i % 6 === 2 ? [text, facts[(i - 2) / 6] ?? ''] : [text])).join('\n')

await using model = await load()
const signal = AbortSignal.timeout(120_000)
for (const question of ['What is the access code for the calm otter?', 'Where does Nora keep the lamp?']) {
  const { text, stopReason, usage, timings } = await model.complete({
    messages: [{ role: 'user', content: `${document}\n${question}` }],
    temperature: 0,
    maxTokens: 48,
    signal,
    onProgress: ({ processed, total }) => console.log(`read ${processed} of ${total} tokens`),
  })
  console.log(`${question}\n  ${text} (${stopReason})`)
  console.log(
    `  ${usage.prompt_tokens} tokens in ${Math.round(timings.prompt_ms)} ms, cache ${usage.attention.kv_bytes >> 10} KiB`,
  )
}
