/** Our numbers, in the form that {@link file://./reference.ts} gives libllama's. */
import { Runner } from '../../src/engine/runner.ts'
import { F16 } from '../../src/ggml/types.ts'
import { openWeights } from '../../src/weights/open.ts'
import { type Agreement, AgreementMeter, argmax, CHUNK, Reference, type ReferenceOptions, TEST_THREADS } from './reference.ts'

export interface RunnerSettings {
  readonly nThreads?: number
  /** ggml type of cached keys and values; f16 if left out. */
  readonly cacheType?: number
  /** Tokens per step; libllama's default if left out. */
  readonly nUbatch?: number
  readonly repack?: boolean
  /** Quantise to this type while loading. */
  readonly type?: number
  /** Names for files that settings may name. */
  readonly adapters?: Readonly<Record<string, string>>
}

export async function withRunner<T>(path: string, settings: RunnerSettings, use: (runner: Runner) => Promise<T>): Promise<T> {
  using source = openWeights(path)
  const cacheType = settings.cacheType ?? F16
  using runner = await Runner.load(source, {
    nThreads: settings.nThreads ?? TEST_THREADS,
    cacheTypes: { k: cacheType, v: cacheType },
    repack: settings.repack ?? true,
    type: settings.type,
    adapters: settings.adapters,
  })
  return await use(runner)
}

/** Logits after every token, one array of `nVocab` floats each. */
export async function runnerLogits(path: string, tokens: Int32Array, settings: RunnerSettings = {}): Promise<Float32Array[]> {
  const rows: Float32Array[] = []
  await eachLogits(path, tokens, { ...settings, visit: (_, logits) => rows.push(logits.slice()) })
  return rows
}

interface Visit {
  /** Called before a step with its tokens. */
  readonly step?: (tokens: Int32Array) => void
  /** Called with the logits after each token in turn. */
  readonly visit: (i: number, logits: Float32Array) => void
}

async function eachLogits(path: string, tokens: Int32Array, { step, visit, ...settings }: RunnerSettings & Visit): Promise<void> {
  await withRunner(path, settings, async (runner) => {
    using sequence = runner.newSequence(tokens.length)
    const { nVocab } = runner.shape
    const nUbatch = settings.nUbatch ?? CHUNK
    for (let from = 0; from < tokens.length; from += nUbatch) {
      const part = tokens.subarray(from, from + nUbatch)
      step?.(part)
      const [logits] = await runner.run([{ sequence, tokens: part, logits: 'all' }])
      for (let i = 0; i < part.length; i++) visit(from + i, logits!.subarray(i * nVocab, (i + 1) * nVocab))
    }
  })
}

/** The `n` tokens each prompt is continued with, always taking the likeliest. */
export async function runnerGreedy(
  path: string,
  prompts: readonly Int32Array[],
  n: number,
  settings: RunnerSettings = {},
): Promise<number[][]> {
  return await withRunner(path, settings, async (runner) => {
    const answers: number[][] = []
    for (const prompt of prompts) {
      using sequence = runner.newSequence(prompt.length + n)
      const answer: number[] = []
      for (let next: ArrayLike<number> = prompt; answer.length < n; next = [answer.at(-1)!]) {
        const [logits] = await runner.run([{ sequence, tokens: next, logits: 'last' }])
        answer.push(argmax(logits!))
      }
      answers.push(answer)
    }
    return answers
  })
}

/** How well we agree with libllama, both reading `tokens` from the same file in the same steps. */
export async function agreement(
  path: string,
  tokens: Int32Array,
  options: RunnerSettings & ReferenceOptions = {},
): Promise<Agreement> {
  using reference = new Reference(path, tokens.length, options)
  const meter = new AgreementMeter()
  const nUbatch = options.nUbatch ?? CHUNK
  let expected: (i: number) => Float32Array
  await eachLogits(path, tokens, {
    ...options,
    step: (part) => (expected = reference.read(part)),
    visit: (i, logits) => {
      if (i + 1 < tokens.length) meter.add(logits, expected(i % nUbatch), tokens[i + 1]!)
    },
  })
  return meter.result()
}

export function compare(tokens: ArrayLike<number>, ours: readonly Float32Array[], reference: readonly Float32Array[]): Agreement {
  const meter = new AgreementMeter()
  for (let i = 0; i + 1 < tokens.length; i++) meter.add(ours[i]!, reference[i]!, tokens[i + 1]!)
  return meter.result()
}
