/** One question about a long text under two settings of attention: answer and cost. Run it with `npx tsx examples/05-attention.ts`. */
import { readFileSync } from 'node:fs'
import { load, methodInfos } from 'kvasir'

const paragraphs = readFileSync(new URL('../models/text/heldout.txt', import.meta.url), 'utf8')
  .split('\n\n')
  .slice(20, 36)
const document = ['The access code for the calm otter is 40412.', ...paragraphs].join('\n')
const messages = [{ role: 'user', content: `${document}\nWhat is the access code for the calm otter?` }]

for (const { name, axis, summary } of methodInfos()) console.log(`${name} (${axis}): ${summary}`)

await using model = await load()
for (const attention of ['dense', { method: 'streaming', sink: 4, window: 128 }]) {
  const { text, usage, timings } = await model.complete({ messages, attention, temperature: 0, maxTokens: 48 })
  const { method, density, kept_tokens, evicted_tokens, kv_bytes } = usage.attention
  console.log(`${method}: ${text}`)
  console.log(`  keys read: ${(100 * density).toFixed(0)} % of dense; tokens kept: ${kept_tokens}, dropped: ${evicted_tokens}`)
  console.log(`  cache: ${kv_bytes >> 10} KiB; prompt of ${usage.prompt_tokens} tokens in ${Math.round(timings.prompt_ms)} ms`)
}
