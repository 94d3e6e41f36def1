import { setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { type Entrant, fill, race, warmUp } from '../../src/bench/race.ts'
import { Turns } from '../../src/bench/turns.ts'
import { FakeContender } from './fake-contender.ts'

function entrant(contender: FakeContender): Entrant & { contender: FakeContender } {
  return { contender, owner: contender.engine, laps: [] }
}

const options = () => ({ nSeq: 1, nVocab: 100, nBatch: 512, seed: 1, repetitions: 3, turns: new Turns() })

describe('race', () => {
  it('lets everyone run every round, in an order that is reversed from round to round', async () => {
    const entrants = [entrant(new FakeContender('kvasir')), entrant(new FakeContender('llama.cpp', 1))]
    const order: string[] = []
    await race(entrants, { nPrompt: 4, nGen: 2, nDepth: 0 }, { ...options(), onLap: ({ owner }) => order.push(owner) })
    expect(order).toEqual(['kvasir', 'llama.cpp', 'llama.cpp', 'kvasir', 'kvasir', 'llama.cpp'])
    expect(entrants.map(({ laps }) => laps.length)).toEqual([3, 3])
  })

  it('starts every lap at the depth it was filled to, and counts the cache before it is cut back', async () => {
    const runner = entrant(new FakeContender())
    await fill([runner], 10, options())
    expect(runner.contender.nTokens).toBe(10)
    await race([runner], { nPrompt: 4, nGen: 2, nDepth: 10 }, options())
    expect(runner.laps.map(({ kvBytes }) => kvBytes)).toEqual([16, 16, 16])
    expect(runner.contender.nTokens).toBe(10)
  })

  it('fills caches anew that have dropped rows and cannot be cut back', async () => {
    const runner = entrant(new FakeContender())
    runner.contender.forgets = true
    await fill([runner], 10, options())
    await race([runner], { nPrompt: 4, nGen: 2, nDepth: 10 }, options())
    expect(runner.laps.map(({ kvBytes }) => kvBytes)).toEqual([16, 16, 16])
    expect(runner.contender).toMatchObject({ truncated: [], cleared: 3, nTokens: 0 })
    const prompt = runner.contender.tokens.slice(0, 10)
    expect(runner.contender.tokens.slice(16, 26)).toEqual(prompt)
  })

  it('warms up without timing', async () => {
    const runner = entrant(new FakeContender())
    await warmUp([runner], { nPrompt: 2000, nGen: 100, nDepth: 0 }, options())
    expect(runner.laps).toEqual([])
    expect(runner.contender.tokens.length).toBe(512 + 4)
    expect(runner.contender.truncated).toEqual([0])
  })
})

describe('Turns', () => {
  it('puts memory down to the one that took it', async () => {
    const turns = new Turns()
    const size = 64 * 1024 * 1024
    const held: Buffer[] = []
    await turns.take('a', () => void held.push(Buffer.alloc(size, 1)))
    const total = process.memoryUsage.rss()
    expect(Math.abs(turns.residentBytes('a') - total)).toBeLessThan(size / 4)
    expect(Math.abs(turns.residentBytes('a/cache') - total)).toBeLessThan(size / 4)
    expect(Math.abs(turns.residentBytes('b') - (total - size))).toBeLessThan(size / 4)
    expect(held.length).toBe(1)
  })

  it('does not begin a turn while a thread of the process spins', async () => {
    const flag = new Int32Array(new SharedArrayBuffer(4))
    const spin =
      'const { workerData } = require("node:worker_threads"); const end = Date.now() + 400; workerData[0] = 1; while (Date.now() < end); workerData[0] = 2'
    const worker = new Worker(spin, { eval: true, workerData: flag })
    while (flag[0] === 0) await setTimeout(1)
    await new Turns().take('a', () => expect(flag[0]).toBe(2))
    await worker.terminate()
  })
})
