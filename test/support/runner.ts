/** Our numbers, in the form that {@link file://./reference.ts} gives libllama's. */
import { dense } from '../../src/attention/dense.ts'
import { Runner } from '../../src/engine/runner.ts'
import { openWeights } from '../../src/weights/open.ts'
import { type Agreement, AgreementMeter, argmax, type ReferenceOptions, referenceLogits, TEST_THREADS } from './reference.ts'

export interface RunnerSettings {
  readonly nThreads?: number
  /** ggml type of cached keys and values; f16 (1) if left out. */
  readonly cacheType?: number
  /** Tokens per step; libllama's default if left out. */
  readonly nUbatch?: number
  readonly repack?: boolean
  /** Quantise to this type while loading. */
  readonly type?: number
}

export async function withRunner<T>(path: string, settings: RunnerSettings, use: (runner: Runner) => Promise<T>): Promise<T> {
  using source = openWeights(path)
  const cacheType = settings.cacheType ?? 1
  using runner = await Runner.load(source, {
    attention: dense,
    nThreads: settings.nThreads ?? TEST_THREADS,
    cacheTypes: { k: cacheType, v: cacheType },
    repack: settings.repack ?? true,
    type: settings.type,
  })
  return await use(runner)
}

/** Logits after every token, one array of `nVocab` floats each. */
export async function runnerLogits(path: string, tokens: Int32Array, settings: RunnerSettings = {}): Promise<Float32Array[]> {
  return await withRunner(path, settings, async (runner) => {
    using cache = runner.newSequence(tokens.length)
    const { nVocab } = runner.shape
    const rows: Float32Array[] = []
    const nUbatch = settings.nUbatch ?? 512
    for (let from = 0; from < tokens.length; from += nUbatch) {
      const [logits] = await runner.run([{ cache, tokens: tokens.subarray(from, from + nUbatch), logits: 'all' }])
      for (let at = 0; at < logits!.length; at += nVocab) rows.push(logits!.slice(at, at + nVocab))
    }
    return rows
  })
}

/** The `n` tokens each prompt is continued with, always taking the likeliest. */
export async function runnerGreedy(path: string, prompts: readonly Int32Array[], n: number): Promise<number[][]> {
  return await withRunner(path, {}, async (runner) => {
    const answers: number[][] = []
    for (const prompt of prompts) {
      using cache = runner.newSequence(prompt.length + n)
      const answer: number[] = []
      for (let next: ArrayLike<number> = prompt; answer.length < n; next = [answer.at(-1)!]) {
        const [logits] = await runner.run([{ cache, tokens: next, logits: 'last' }])
        answer.push(argmax(logits!))
      }
      answers.push(answer)
    }
    return answers
  })
}

/** How well we agree with libllama on `tokens`, reading the same file the same way. */
export async function agreement(
  path: string,
  tokens: Int32Array,
  options: RunnerSettings & ReferenceOptions = {},
): Promise<Agreement> {
  const reference = referenceLogits(path, tokens, options)
  return compare(tokens, await runnerLogits(path, tokens, options), reference)
}

export function compare(tokens: ArrayLike<number>, ours: readonly Float32Array[], reference: readonly Float32Array[]): Agreement {
  const meter = new AgreementMeter()
  for (let i = 0; i + 1 < tokens.length; i++) meter.add(ours[i]!, reference[i]!, tokens[i + 1]!)
  return meter.result()
}
