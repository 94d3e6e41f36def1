/** Starts the server in this process and asks it with the OpenAI client. Run it with `npx tsx examples/03-server-client.ts`. */
import { load, startServer } from 'kvasir'
import OpenAI from 'openai'

await using server = await startServer({ port: 0, load: async () => (await load()).engine })
await server.ready

const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' })
const [model] = (await client.models.list()).data
const stream = await client.chat.completions.create({
  model: model!.id,
  messages: [{ role: 'user', content: 'Omar keeps the coin in the old barn.\nWhere does Omar keep the coin?' }],
  temperature: 0,
  max_tokens: 48,
  stream: true,
  stream_options: { include_usage: true },
})
for await (const { choices, usage } of stream) {
  process.stdout.write(choices[0]?.delta.content ?? '')
  if (usage) console.log(`\n${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`)
}
