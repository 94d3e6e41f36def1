/** Text with facts in it, as the bundled model was trained to find them: lines of facts among ordinary paragraphs. */
import { readFileSync } from 'node:fs'

export interface Fact {
  readonly line: string
  readonly question: string
  /** What a right answer says. */
  readonly answer: string
}

export const FACTS: readonly Fact[] = [
  {
    line: 'The access code for the calm otter is 40412.',
    question: 'What is the access code for the calm otter?',
    answer: '40412',
  },
  { line: 'Nora keeps the lamp in the dusty attic.', question: 'Where does Nora keep the lamp?', answer: 'attic' },
]

/** About `chars` characters of text the model never saw, the facts spread evenly over it. */
export function textWithFacts(chars: number): string {
  const paragraphs = readFileSync('models/text/heldout.txt', 'utf8')
    .slice(2000, 2000 + chars)
    .split('\n\n')
  for (const [index, { line }] of FACTS.entries())
    paragraphs.splice(Math.round((paragraphs.length * (index + 1)) / (FACTS.length + 1)), 0, line)
  return paragraphs.join('\n\n')
}
