/**
 * A text to train the bundled model's descendants on, on stdout: half of it a plain text, half conversations about parts of that
 * text with facts hidden in them, in the model's chat template (`--parse-special` reads it so).
 *
 *   npx tsx scripts/facts-text.ts TEXT [characters] [tokens of the longest conversation] [seed]
 */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { paragraphsOf, textWithFacts } from './facts.ts'

const QUESTIONS = 4
const CHARS_PER_TOKEN = 3.3
// Pieces of the plain text, in characters, from all over it.
const PIECE = 1500
const APART = 3

const [path, characters = '3500000', longest = '400', seed = '1'] = process.argv.slice(2)
const bytes = readFileSync(path!)
const text = (bytes[0] === 0x1f ? gunzipSync(bytes) : bytes).toString('utf8')
const paragraphs = paragraphsOf(text)

const out: string[] = []
let [n, plain, at] = [0, 0, 0]
for (let i = 0; n < Number(characters); i++) {
  const shortest = Number(longest) / 4
  const { document, facts, below } = textWithFacts(paragraphs, {
    nTokens: shortest + (((i * 7919) % 101) / 101) * (Number(longest) - shortest),
    countTokens: (line) => line.length / CHARS_PER_TOKEN,
    seed: Number(seed) * 1_000_000 + i,
  })
  const asked = [...facts]
  while (asked.length > QUESTIONS) asked.splice(below(asked.length), 1)
  const turns: string[] = []
  while (asked.length > 0) {
    const { question, line } = asked.splice(below(asked.length), 1)[0]!
    turns.push(`<|user|>${turns.length === 0 ? `${document}\n` : ''}${question}<|end|><|assistant|>${line}<|end|>`)
  }
  out.push(turns.join(''))
  n += out.at(-1)!.length
  for (; plain < n / 2; at += APART * PIECE) {
    const piece = text.slice(at % text.length, (at % text.length) + PIECE)
    out.push(piece)
    plain += piece.length
    n += piece.length
  }
}
process.stdout.write(out.join(''))
