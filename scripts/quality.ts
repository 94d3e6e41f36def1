/**
 * What settings of attention do to a model's predictions, paired with dense on the same text: prints markdown.
 * `npx tsx scripts/quality.ts [options] SETTING…`
 *
 *   -m MODEL     the model, a GGUF file or a folder (default: the bundled one)
 *   --base BASE  a model of the same tokenizer, read densely, in place of MODEL as what all is compared with
 *   -f TEXT      what is read (default: models/text/heldout.txt)
 *   -n N         windows of the text, from its start (default 20)
 *   -w TOKENS    tokens of a window (default 512)
 *   --decode     the settings read token by token, as in decoding; the reference still reads each window at once
 *   --prompt P   with --decode: the first P tokens of a window at once, and only what follows them counts (default 1)
 *   -t THREADS   (default 1)
 *   --json FILE  the numbers, per window too
 *
 * Each window is read by itself, from an empty cache. Its tokens but the last predict the next one: perplexity is exp of the mean
 * of -ln p(next token), KL the mean of KL(dense ‖ setting) over the whole vocabulary, in nats, with its standard error over
 * windows; top-1 is where both think the same token likeliest. Bytes are those of the rows held at the end of a window, per
 * token, without the rounding to pages; what a method remembers besides rows is not among them. Methods that drop rows mostly
 * do so after a prompt: what they lose shows with --decode.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { RunSequence } from '../src/engine/run-sequence.ts'
import { Runner } from '../src/engine/runner.ts'
import { bundledModel } from '../src/index.ts'
import { F16, rowBytes } from '../src/ggml/types.ts'
import type { KvCache } from '../src/kv/cache.ts'
import { loadTokenizer } from '../src/text/load.ts'
import { openWeights } from '../src/weights/open.ts'
import { HELDOUT } from '../test/support/bundled.ts'
import { divergence } from '../test/support/divergence.ts'

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', short: 'm', default: bundledModel() },
    base: { type: 'string' },
    file: { type: 'string', short: 'f', default: HELDOUT },
    windows: { type: 'string', short: 'n', default: '20' },
    window: { type: 'string', short: 'w', default: '512' },
    decode: { type: 'boolean', default: false },
    prompt: { type: 'string', default: '1' },
    threads: { type: 'string', short: 't', default: '1' },
    json: { type: 'string' },
  },
})
const [nWindows, nTokens, nPrompt, nThreads] = [given.windows, given.window, given.prompt, given.threads].map(count)
if (nTokens! < 2 || nPrompt! >= nTokens!) throw new Error('a window needs two tokens, and one after the prompt')

function count(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text)
  throw new Error(`${text} is no count`)
}

/** A model with the text as its tokens. */
async function open(path: string): Promise<{ runner: Runner; tokens: Int32Array }> {
  using source = openWeights(path)
  using tokenizer = loadTokenizer(source)
  const tokens = tokenizer.encode(readFileSync(given.file, 'utf8'), { addSpecial: false })
  const runner = await Runner.load(source, { nThreads: nThreads!, cacheTypes: { k: F16, v: F16 }, repack: true })
  return { runner, tokens }
}

/** Logits after each of the tokens, of which the first `atOnce` are a prompt: f32[nVocab, tokens.length]. */
async function read(runner: Runner, sequence: RunSequence, tokens: Int32Array, atOnce: number): Promise<Float32Array> {
  const { cache, attention } = sequence
  const { nVocab } = runner.shape
  const all = new Float32Array(tokens.length * nVocab)
  while (cache.nTokens < tokens.length) {
    const at = cache.nTokens
    const size = at < atOnce ? Math.min(atOnce - at, attention.maxChunk(cache)) : 1
    const endsPrompt = at + size >= atOnce
    const [logits] = await runner.run([{ sequence, tokens: tokens.subarray(at, at + size), logits: 'all', endsPrompt }])
    all.set(logits!, at * nVocab)
  }
  return all
}

/** Bytes of the rows a cache holds. */
function heldBytes({ layers }: KvCache): number {
  const stores = new Map(layers.flatMap(({ stores, rows }) => Object.values(stores).map((store) => [store, rows] as const)))
  let bytes = 0
  for (const [{ layout }, rows] of stores) {
    if (layout.fixed === undefined) bytes += rowBytes(layout.type, layout.width) * layout.nHead * (rows[0]?.highWater ?? 0)
  }
  return bytes
}

class Tally {
  readonly setting: string
  /** Per window: means of -ln p(next) and of the divergence, and the share of equal choices. */
  readonly windows: { loss: number; kl: number; top1: number }[] = []
  bytes = 0

  constructor(setting: string) {
    this.setting = setting
  }

  add(tokens: Int32Array, ours: Float32Array, reference: Float32Array): void {
    const nVocab = ours.length / tokens.length
    const sum = { loss: 0, kl: 0, top1: 0 }
    const first = given.decode ? nPrompt! - 1 : 0
    for (let i = first; i + 1 < tokens.length; i++) {
      const at = (logits: Float32Array) => logits.subarray(i * nVocab, (i + 1) * nVocab)
      const { logProbability, kl, isSameTop } = divergence(at(reference), at(ours), tokens[i + 1]!)
      sum.loss -= logProbability
      sum.kl += kl
      sum.top1 += isSameTop ? 1 : 0
    }
    const n = tokens.length - 1 - first
    this.windows.push({ loss: sum.loss / n, kl: sum.kl / n, top1: sum.top1 / n })
  }

  result() {
    const n = this.windows.length
    const mean = (of: (window: (typeof this.windows)[number]) => number) => this.windows.reduce((sum, w) => sum + of(w), 0) / n
    const kl = mean((w) => w.kl)
    return {
      setting: this.setting,
      perplexity: Math.exp(mean((w) => w.loss)),
      kl,
      klError: n < 2 ? null : Math.sqrt(mean((w) => (w.kl - kl) ** 2) / (n - 1)),
      top1: mean((w) => w.top1),
      bytesPerToken: this.bytes / (n * nTokens!),
      windows: this.windows,
    }
  }
}

const { runner, tokens } = await open(given.model)
const base = given.base === undefined ? null : await open(given.base)
if (base && tokens.some((token, i) => base.tokens[i] !== token)) throw new Error(`${given.base} has another tokenizer`)
if (tokens.length < nWindows! * nTokens!) throw new Error(`the text has ${tokens.length} tokens`)
const settings = positionals.length > 0 ? positionals : ['dense']
const specs = settings.map((setting) => runner.attention(setting).spec)

// A row for the reference, in which it is compared with itself: as it was read, or token by token.
const reader = base?.runner ?? runner
const own = runner.attention('dense').spec // of a model that shares by itself: its method
const dense = new Tally(base ? 'base, dense' : own)
const tallies = specs.filter((spec) => base || spec !== own).map((spec) => new Tally(spec))
for (let i = 0; i < nWindows!; i++) {
  const window = tokens.subarray(i * nTokens!, (i + 1) * nTokens!)
  using atOnce = reader.newSequence(nTokens!)
  const reference = await read(reader, atOnce, window, nTokens!)
  for (const tally of [dense, ...tallies]) {
    const isDense = tally === dense
    using sequence = isDense ? reader.newSequence(nTokens!) : runner.newSequence(nTokens!, tally.setting)
    const logits = await read(isDense ? reader : runner, sequence, window, given.decode ? nPrompt! : nTokens!)
    tally.add(window, logits, reference)
    tally.bytes += heldBytes(sequence.cache)
  }
  if (process.stderr.isTTY) process.stderr.write(`\r${i + 1} of ${nWindows} windows `)
}
if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')

const rows = [dense, ...tallies].map((tally) => tally.result())
const [first] = rows
const how = given.decode ? `, token by token${nPrompt! > 1 ? ` after a prompt of ${nPrompt}` : ''}` : ''
console.log(`\n${nWindows} windows of ${nTokens} tokens${how}\n`)
console.log(
  '| setting | perplexity | × dense | KL(dense ‖ it), nats | same top-1 | cache bytes per token | of dense |\n| --- | --: | --: | --: | --: | --: | --: |',
)
for (const { setting, perplexity, kl, klError, top1, bytesPerToken } of rows) {
  const cells = [
    setting,
    perplexity.toFixed(2),
    (perplexity / first!.perplexity).toFixed(3),
    klError === null ? kl.toFixed(4) : `${kl.toFixed(4)} ± ${klError.toFixed(4)}`,
    `${(100 * top1).toFixed(1)} %`,
    bytesPerToken.toFixed(0),
    `${((100 * bytesPerToken) / first!.bytesPerToken).toFixed(1)} %`,
  ]
  console.log(`| ${cells.join(' | ')} |`)
}
if (given.json) {
  const about = { model: given.model, base: given.base, text: given.file, nWindows, nTokens, decode: given.decode, nPrompt }
  writeFileSync(given.json, `${JSON.stringify({ ...about, rows }, null, 2)}\n`)
}
base?.runner[Symbol.dispose]()
runner[Symbol.dispose]()
