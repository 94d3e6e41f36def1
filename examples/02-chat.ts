/** A conversation of several turns; the model remembers what was said. Run it with `npx tsx examples/02-chat.ts`. */
import { KvasirError, load } from 'kvasir'

await using model = await load(undefined, { nCtx: 512 })
const chat = model.chat({ temperature: 0, maxTokens: 48 })

const turns = [
  'The access code for the calm otter is 40412.\nWhat is the access code for the calm otter?',
  'Nora keeps the lamp in the dusty attic.\nWhere does Nora keep the lamp?',
  'What is the access code for the calm otter?',
]
for (const turn of turns) {
  console.log(`> ${turn.replace('\n', '\n  ')}`)
  for await (const { text } of chat.send(turn)) process.stdout.write(text)
  process.stdout.write('\n')
}

try {
  await chat.send('much '.repeat(1000)).next()
} catch (error) {
  if (!(error instanceof KvasirError)) throw error
  console.log(`${error.code}: ${error.message}`) // nothing is cut off in silence
}
console.log(`${chat.messages.length} messages in the history`)
