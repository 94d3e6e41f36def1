import { describe, expect, it } from 'vitest'
import { formatRows, testName } from '../../src/bench/report.ts'
import { type RowHead, rowsOf } from '../../src/bench/results.ts'
import type { Entrant } from '../../src/bench/race.ts'
import { mean, median, standardDeviation } from '../../src/bench/statistics.ts'
import { FakeContender } from './fake-contender.ts'

const head: RowHead = {
  build_commit: 'test',
  cpu_info: 'a "fast" one',
  backends: 'CPU',
  model_filename: 'm.gguf',
  model_type: 'llama 1.24 B q8_0',
  model_size: 1024 ** 3,
  model_n_params: 1.24e9,
  n_batch: 2048,
  n_ubatch: 512,
  n_threads: 2,
  type_k: 'f16',
  type_v: 'f16',
}

function entrant(contender: FakeContender, seconds: readonly number[], compute: number | null): Entrant {
  const laps = seconds.map((prompt) => ({ prompt, generation: 0, compute, kvBytes: 2048, rssBytes: 4096 }))
  return { contender, owner: contender.engine, laps }
}

const entrants = [
  entrant(new FakeContender('kvasir'), [1, 2, 3], 1.9),
  entrant(new FakeContender('llama.cpp', 1), [4, 4, 4], null),
  entrant(new FakeContender('llama.cpp', 0), [2.5, 2.5, 9], null),
]
const test = { nPrompt: 100, nGen: 0, nDepth: 4096 }
const rows = rowsOf(entrants, test, { head, nSeq: 1, batched: false })

describe('rows', () => {
  it('keep the faster of the two llama.cpp and divide by its median', () => {
    expect(rows.map(({ engine, flash_attn }) => [engine, flash_attn])).toEqual([
      ['kvasir', -1],
      ['llama.cpp', 0],
    ])
    expect(rows[0]!.vs_llama_cpp).toBeCloseTo(50 / 40, 10)
    expect(rows[1]!.vs_llama_cpp).toBeNull()
  })

  it('hold samples, mean, deviation and median', () => {
    const row = rows[0]!
    expect(row.samples_ns).toEqual([1e9, 2e9, 3e9])
    expect([row.avg_ns, row.stddev_ns, row.median_ns]).toEqual([2e9, 1e9, 2e9])
    expect(row.samples_ts).toEqual([100, 50, 100 / 3])
    expect(row.median_ts).toBe(50)
    expect(row.outside_compute).toBeCloseTo(0.05, 10)
  })

  it('of several sequences have the columns of llama-batched-bench', () => {
    const laps = [{ prompt: 2, generation: 4, compute: 5, kvBytes: 1, rssBytes: 1 }]
    const batched = [{ contender: new FakeContender(), owner: 'kvasir', laps }]
    const [row] = rowsOf(batched, { nPrompt: 100, nGen: 50, nDepth: 10 }, { head, nSeq: 4, batched: true })
    expect(row!.batched).toEqual({
      pp: 100,
      tg: 50,
      pl: 4,
      n_kv: 640,
      t_pp: 2,
      speed_pp: 200,
      t_tg: 4,
      speed_tg: 50,
      t: 6,
      speed: 100,
    })
    expect(formatRows([row!], 'md')).toContain('| S_TG t/s |')
    expect(JSON.parse(formatRows([row!], 'json'))[0]).toMatchObject({ n_prompt: 100, pl: 4, speed_tg: 50 })
  })
})

describe('formatRows', () => {
  it('writes a markdown table whose lines have the same width', () => {
    const lines = formatRows(rows, 'md').trimEnd().split('\n')
    expect(lines.length).toBe(4)
    expect(new Set(lines.map((line) => line.length)).size).toBe(1)
    expect(lines[0]).toMatch(/^\| model .* engine .* test \|.* t\/s \|.* vs llama\.cpp \|$/)
    expect(lines[2]).toContain('pp100 @ d4096')
    expect(lines[2]).toContain('1.25×')
    expect(lines[3]).toContain('llama.cpp -fa 0')
  })

  it('leaves out columns that say nothing', () => {
    const table = formatRows(rowsOf(entrants.slice(0, 1), test, { head, nSeq: 1, batched: false }), 'md')
    expect(table).not.toContain('vs llama.cpp')
    expect(table).not.toContain('type_k')
  })

  it('writes an array of JSON rows with llama-bench keys', () => {
    const parsed = JSON.parse(formatRows(rows, 'json')) as Record<string, unknown>[]
    const keys = 'n_prompt n_gen n_depth avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts type_k n_threads model_filename'
    for (const key of [...keys.split(' '), 'engine', 'attention', 'kv_bytes', 'rss_bytes']) expect(parsed[0]).toHaveProperty(key)
  })

  it('writes CSV with every value quoted', () => {
    const [header, ...lines] = formatRows(rows, 'csv').trimEnd().split('\n')
    expect(header!.split(',').length).toBe(Object.keys(JSON.parse(formatRows(rows, 'json'))[0]).length)
    expect(lines[0]).toContain('"a ""fast"" one"')
    expect(lines[0]).toContain('"1000000000 2000000000 3000000000"')
  })
})

it.each([
  [{ n_prompt: 512, n_gen: 0, n_depth: 0 }, 'pp512'],
  [{ n_prompt: 0, n_gen: 128, n_depth: 4096 }, 'tg128 @ d4096'],
  [{ n_prompt: 512, n_gen: 128, n_depth: 0 }, 'pp512+tg128'],
])('%o is called %s', (row, name) => {
  expect(testName(row)).toBe(name)
})

it('the median of an even number of values lies between the middle two', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5)
  expect(mean([1, 2, 6])).toBe(3)
  expect(standardDeviation([5])).toBe(0)
})
