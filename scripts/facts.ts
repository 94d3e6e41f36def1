/** Facts to hide in texts, of the kind that the bundled model was trained to find again, and texts with such facts. */
import { random as seeded } from '../src/core/random.ts'

export interface Fact {
  readonly line: string
  readonly question: string
  /** What a right answer says. */
  readonly answer: string
}

const words = (text: string): string[] => text.split(' ')
// Words that the model finds again in short texts.
const ADJECTIVES = words(
  'shy tiny hidden brave calm golden blue noble purple white clever orange mellow quiet ancient swift dusty cold wise old eager small proud green bright rusty sleepy warm lazy young rapid red gentle yellow',
)
const NOUNS = words(
  'turtle finch camel raven rabbit horse goose crow badger wolf hawk panda swan lion whale heron owl robin tiger lamb fox donkey eagle falcon bear crane sparrow rooster deer duck hen otter',
)
const NAMES = words(
  'Grace Paul David Ben Emma Julia Ivan Leo Zoe Uma Jack Kate Nora Frank Felix Maria Quinn Clara Noah Mia Alice Victor Anna Dan Peter Rita Carol Max Tom Rosa',
)
const THINGS = words(
  'violin clock drum ladder camera rope radio mirror needle piano coin notebook chair pencil guitar ring hammer map lantern phone kite scarf kettle lamp letter bottle helmet compass jacket key flute candle',
)
const ROOMS = words(
  'tower shed garage library closet porch barn hallway pantry attic office basement study kitchen cellar garden',
)

const TOKENS_PER_FACT = 64

/** Ever new facts. No word comes twice before all of its kind have come: such facts are confused. */
export function facts(below: (n: number) => number): () => Fact {
  const drawer = (kind: readonly string[]) => {
    let left: string[] = []
    return () => {
      if (left.length === 0) left = [...kind]
      return left.splice(below(left.length), 1)[0]!
    }
  }
  const [adjective, noun, name, thing, room] = [ADJECTIVES, NOUNS, NAMES, THINGS, ROOMS].map(drawer)
  return () => {
    if (below(2) === 0) {
      const [who, code] = [`${adjective!()} ${noun!()}`, String(10_000 + below(90_000))]
      const answer = `The access code for the ${who} is ${code}.`
      return { line: answer, question: `What is the access code for the ${who}?`, answer: code }
    }
    const [person, what, where] = [name!(), thing!(), `${adjective!()} ${room!()}`]
    const line = `${person} keeps the ${what} in the ${where}.`
    return { line, question: `Where does ${person} keep the ${what}?`, answer: where }
  }
}

/** Lines of a text for facts to hide between. */
export function paragraphsOf(text: string): string[] {
  return text.split(/\n+/).filter((line) => line.length > 20 && line.length < 300)
}

export interface TextOptions {
  /** At most, by `countTokens`. */
  readonly nTokens: number
  readonly countTokens: (text: string) => number
  readonly seed: number
}

export interface TextWithFacts {
  readonly document: string
  readonly facts: readonly Fact[]
  /** Whole numbers from 0 to below n, the next of the same seed. */
  readonly below: (n: number) => number
}

/** Paragraphs with a fact in about every 64 tokens. */
export function textWithFacts(paragraphs: readonly string[], { nTokens, countTokens, seed }: TextOptions): TextWithFacts {
  const random = seeded(seed)
  const below = (n: number) => Math.floor(random() * n)
  const newFact = facts(below)
  const lines: string[] = []
  const hidden: Fact[] = []
  for (let at = below(paragraphs.length), n = 0; ; at++) {
    const fact = n >= hidden.length * TOKENS_PER_FACT ? newFact() : null
    const line = fact ? fact.line : paragraphs[at % paragraphs.length]!
    n += countTokens(`${line}\n`)
    if (n > nTokens) return { document: lines.join('\n'), facts: hidden, below }
    lines.push(line)
    if (fact) hidden.push(fact)
  }
}
