/** Streams one answer of the bundled model. Run it with `npx tsx examples/01-generate.ts`. */
import { load } from 'kvasir'

await using model = await load() // or load('model.gguf'), or load('folder/')
const messages = [{ role: 'user', content: 'Nora keeps the lamp in the dusty attic.\nWhere does Nora keep the lamp?' }]

console.log(`${model.name}, ${model.countTokens(messages)} tokens of ${model.nCtx}`)
for await (const piece of model.generate({ messages, temperature: 0, maxTokens: 64 })) {
  process.stdout.write(piece.text)
}
process.stdout.write('\n')

const { text, tokens, logprobs, timings } = await model.complete({ prompt: 'The access', maxTokens: 8, logprobs: 1, seed: 1 })
console.log({ text, tokens, sure: logprobs.map(({ logprob }) => Math.exp(logprob).toFixed(2)) })
console.log(`${Math.round(timings.predicted_per_second)} tokens/s`)
