/**
 * Cuts a long text so that its parts have the tokens of the whole. Two habits of libllama make this necessary:
 *
 * - Most of its pre-tokenizers are `std::regex` patterns, whose matching takes 1.4 KB of stack per character: a run of about
 *   5,700 letters (base64, a line of dashes) overflows 8 MiB and ends the process. No match may be longer than LONGEST_RUN.
 *   Only such a run is cut where its tokens may differ from libllama's; three times longer, and libllama would have crashed.
 * - Splitting at special tokens is quadratic in their number: 100,000 of them take 11 s. No part has more than MOST_SPECIALS.
 */
const LONGEST_RUN = 2000
const MOST_SPECIALS = 2000

const isAlphanumeric = (c: number) => (c >= 0x30 && c <= 0x39) || (c >= 0x41 && c <= 0x5a) || (c >= 0x61 && c <= 0x7a)
const isCjkLetter = (c: number) =>
  (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3041 && c <= 0x3096) || (c >= 0x30a1 && c <= 0x30fa) || (c >= 0xac00 && c <= 0xd7a3)
/** Certainly not a space, in Unicode's sense or in a pattern's. */
const isVisible = (c: number) => (c > 0x20 && c < 0x7f) || (c >= 0x3041 && c < 0xd800)
const NEWLINE = 0x0a
const CJK_STOPS = new Set(['。', '，', '、'].map((stop) => stop.charCodeAt(0)))

/** Whether no pattern of any pre-tokenizer matches across the place between two UTF-16 units. */
export function isWordEnd(before: number, after: number): boolean {
  if (after === 0x20 || after === NEWLINE) return isAlphanumeric(before)
  return (before === NEWLINE && isVisible(after)) || (CJK_STOPS.has(after) && isCjkLetter(before))
}

/** Longer texts of special tokens do not occur; comparing them all with each other would take too long. */
const LONGEST_SPECIAL = 256

/** Finds the special tokens that are certainly read as such: no other overlaps them, or themselves repeated. */
export class SpecialFinder {
  readonly #byFirst = new Map<string, string[]>()

  constructor(specials: readonly string[]) {
    const all = new Set(specials)
    const beginnings = new Set<string>()
    const ends = new Set<string>()
    const entangled = new Set<string>(['', ...(specials.some((text) => text.length > LONGEST_SPECIAL) ? all : [])])
    for (const text of all) {
      if (entangled.has(text)) continue
      for (let from = 0; from < text.length; from++) {
        if (from > 0) {
          beginnings.add(text.slice(0, from))
          ends.add(text.slice(from))
        }
        for (let to = from + 1; to <= text.length; to++) {
          const inner = text.slice(from, to)
          if (inner !== text && all.has(inner)) entangled.add(text).add(inner)
        }
      }
    }
    const overlaps = (text: string): boolean => {
      for (let i = 1; i < text.length; i++) if (ends.has(text.slice(0, i)) || beginnings.has(text.slice(i))) return true
      return false
    }
    for (const text of all) {
      if (entangled.has(text) || overlaps(text)) continue
      const list = this.#byFirst.get(text[0]!)
      if (list) list.push(text)
      else this.#byFirst.set(text[0]!, [text])
    }
  }

  /** Length of the special token that begins at `at`; 0 for none. */
  lengthAt(text: string, at: number): number {
    return this.#byFirst.get(text[at]!)?.find((special) => text.startsWith(special, at))?.length ?? 0
  }
}

/** `finder` is asked for texts long enough to need it; `limitsRuns` says whether the pre-tokenizer is a `std::regex`. */
export function cutText(text: string, limitsRuns: boolean, finder: () => SpecialFinder): string[] {
  if (text.length <= LONGEST_RUN) return [text]
  const specials = finder()
  const cuts: number[] = []
  let nSpecials = 0
  let runStart = 0
  for (let i = 0; i < text.length; i++) {
    const length = specials.lengthAt(text, i)
    if (length > 0) {
      if (nSpecials++ === MOST_SPECIALS) {
        cuts.push(i)
        nSpecials = 1
      }
      i += length - 1
      runStart = i + 1
    } else if (limitsRuns && i > runStart) {
      if (isWordEnd(text.charCodeAt(i - 1), text.charCodeAt(i))) runStart = i
      else if (i - runStart >= LONGEST_RUN && (text.charCodeAt(i) & 0xfc00) !== 0xdc00) {
        cuts.push(i)
        runStart = i
      }
    }
  }
  return [...cuts, text.length].map((end, i) => text.slice(i === 0 ? 0 : cuts[i - 1]!, end))
}
