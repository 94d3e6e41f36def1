import { describe, expect, it } from 'vitest'
import type { StepTokens } from '../../src/bench/contender.ts'
import { splitStep } from '../../src/bench/kvasir.ts'
import { generate, readPrompt, type Workload } from '../../src/bench/workload.ts'
import { FakeContender } from './fake-contender.ts'

const work: Workload = { nSeq: 1, nVocab: 100, nBatch: 8, seed: 1 }

describe('readPrompt', () => {
  it('reads in steps of nBatch and asks for logits only after the last token', async () => {
    const contender = new FakeContender()
    await readPrompt(contender, 20, work)
    expect(contender.steps).toEqual([
      [{ seq: 0, n: 8, logits: false }],
      [{ seq: 0, n: 8, logits: false }],
      [{ seq: 0, n: 4, logits: true }],
    ])
  })

  it('lets a step span sequences, as llama-batched-bench does', async () => {
    const contender = new FakeContender()
    await readPrompt(contender, 6, { ...work, nSeq: 2 })
    expect(contender.steps).toEqual([
      [
        { seq: 0, n: 6, logits: true },
        { seq: 1, n: 2, logits: false },
      ],
      [{ seq: 1, n: 4, logits: true }],
    ])
  })

  it('gives every contender the same tokens, within the vocabulary', async () => {
    const [a, b] = [new FakeContender(), new FakeContender('llama.cpp', 1)]
    await readPrompt(a, 50, work)
    await readPrompt(b, 50, work)
    expect(a.tokens).toEqual(b.tokens)
    expect(a.tokens.every((token) => token >= 0 && token < work.nVocab)).toBe(true)
    expect(new Set(a.tokens).size).toBeGreaterThan(20)
  })
})

describe('generate', () => {
  it('appends one token per sequence and step, with logits', async () => {
    const contender = new FakeContender()
    await generate(contender, 3, { ...work, nSeq: 2 })
    const step = [
      { seq: 0, n: 1, logits: true },
      { seq: 1, n: 1, logits: true },
    ]
    expect(contender.steps).toEqual([step, step, step])
  })

  it('stops between steps when it is aborted', async () => {
    const contender = new FakeContender()
    await expect(generate(contender, 3, { ...work, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })
    expect(contender.steps).toEqual([])
  })
})

/** Sequence, tokens and logits of each part of each graph. */
function graphs(parts: readonly StepTokens[], mostOf: (seq: number) => number): unknown[][] {
  const made: unknown[][] = []
  for (let later = parts; later.length > 0;) {
    const split = splitStep(later, 6, mostOf)
    made.push(split.now.map((part) => [part.seq, ...part.tokens, part.logits]))
    later = split.later
  }
  return made
}

describe('splitStep', () => {
  it('fills graphs of at most n tokens, no sequence with more than it takes, and keeps the logits for the last piece of a part', () => {
    const tokens = Int32Array.from({ length: 10 }, (_, i) => i)
    const parts = [
      { seq: 0, tokens, logits: true },
      { seq: 1, tokens: tokens.subarray(0, 3), logits: true },
    ]
    expect(graphs(parts, () => Infinity)).toEqual([
      [[0, 0, 1, 2, 3, 4, 5, false]],
      [
        [0, 6, 7, 8, 9, true],
        [1, 0, 1, false],
      ],
      [[1, 2, true]],
    ])
    expect(graphs(parts, (seq) => (seq === 0 ? 4 : 2))).toEqual([
      [
        [0, 0, 1, 2, 3, false],
        [1, 0, 1, false],
      ],
      [
        [0, 4, 5, 6, 7, false],
        [1, 2, true],
      ],
      [[0, 8, 9, true]],
    ])
  })

  it('would rather fail than wait for ever for a sequence that takes nothing', () => {
    expect(() => splitStep([{ seq: 0, tokens: Int32Array.of(1), logits: true }], 6, () => 0)).toThrow('takes')
  })
})
