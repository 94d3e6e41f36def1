import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { calibrationPath } from '../../src/attention/share/chai/calibration.ts'
import { main } from '../../src/cli/main.ts'
import type { ChaiReport } from '../../src/train/chai-report.ts'
import { calibrateChai, type CalibrateOptions } from '../../src/train/chai.ts'
import { clustersOf, clustersWithin, elbowOf } from '../../src/train/elbow.ts'
import { BUNDLED_GGUF, HELDOUT } from '../support/bundled.ts'
import { editGguf } from '../support/edit-gguf.ts'
import { withRunner } from '../support/runner.ts'

const FOLDER = mkdtempSync(join(tmpdir(), 'kvasir-chai-'))
const MODEL = join(FOLDER, 'demo.gguf')
const TEXT = join(FOLDER, 'text.txt')
const SHORT = join(FOLDER, 'short.txt')

beforeAll(() => {
  symlinkSync(BUNDLED_GGUF, MODEL)
  writeFileSync(TEXT, readFileSync(HELDOUT, 'utf8').slice(0, 20_000))
  writeFileSync(SHORT, 'Not forty tokens.')
})
afterAll(() => rmSync(FOLDER, { recursive: true, force: true }))

describe('the number of clusters', () => {
  it.each([
    [[1, 0.2, 0.1, 0.05, 0], 2],
    [[1, 0.75, 0.5, 0.25, 0], 1],
    [[1, 0.9, 0.1, 0.05, 0], 3],
    [[3, 2.7, 0.3, 0.15, 0], 3],
    [[0, 0, 0], 1],
  ])('of a curve %j is at its elbow, %d', (curve, expected) => {
    expect(elbowOf(curve)).toBe(expected)
  })

  it('is more where that costs too much', () => {
    const inertia = [1, 0.2, 0.1, 0.05, 0]
    expect(clustersOf(inertia, undefined, 0.1)).toBe(2)
    expect(clustersOf(inertia, [2, 0.1, 0.1, 0.1, 0], 0.1)).toBe(2)
    expect(clustersOf(inertia, [0, 0.5, 0.2, 0.1, 0], 0.1)).toBe(4)
    expect(clustersOf(inertia, [0, 0.5, 0.2, 0.1, 0], 0)).toBe(5)
  })

  it('goes where it counts most, to the number that is asked for', () => {
    const steep = [10, 4, 1, 0]
    const flat = [1, 0.9, 0.8, 0]
    expect(clustersWithin([steep, flat], 0.5)).toEqual([3, 1])
    expect(clustersWithin([steep, flat], 0.625)).toEqual([4, 1])
    expect(clustersWithin([steep, flat], 1)).toEqual([4, 4])
    expect(clustersWithin([steep, flat], 0.01)).toEqual([1, 1])
    // One more gains nothing here, two more do.
    expect(
      clustersWithin(
        [
          [5, 5, 0, 0],
          [5, 3, 2.9, 0],
        ],
        0.5,
      ),
    ).toEqual([3, 1])
  })
})

const OPTIONS: CalibrateOptions = {
  ...{ model: MODEL, file: TEXT, out: calibrationPath(MODEL), nThreads: 1 },
  ...{ samples: 3, lossSamples: 1, nTokens: 40, seed: 0, mostLoss: 0.02 },
}

describe('a calibration', () => {
  let report: ChaiReport

  beforeAll(async () => {
    report = await calibrateChai(OPTIONS)
  })

  it('has the curves of every layer, which fall to nothing', () => {
    expect(report.clusters).toHaveLength(6)
    for (const [il, curve] of report.inertia.entries()) {
      expect(curve).toHaveLength(8)
      expect(curve.at(-1)).toBeCloseTo(0, 5)
      for (let c = 1; c < 8; c++) expect(curve[c]).toBeLessThanOrEqual(curve[c - 1]! + 1e-6)
      expect(report.losses![il]!.at(-1)).toBe(0)
      expect(Math.min(...report.losses![il]!)).toBeGreaterThanOrEqual(0)
      expect(report.clusters[il]).toBe(clustersOf(curve, report.losses![il], 0.02))
    }
    expect(report.ratio).toBe(report.clusters.reduce((a, b) => a + b) / 48)
  })

  it('is the same again, and by a ratio it is as small as asked', async () => {
    const out = join(FOLDER, 'again.json')
    expect(await calibrateChai({ ...OPTIONS, out })).toEqual(report)
    const half = await calibrateChai({ ...OPTIONS, out, lossSamples: 0, ratio: 0.5 })
    expect(half.clusters.reduce((a, b) => a + b)).toBe(24)
    expect(half.losses).toBeNull()
    expect((await calibrateChai({ ...OPTIONS, out, seed: 1, lossSamples: 0 })).inertia).not.toEqual(report.inertia)
  })

  it('comes with a page that draws them and loads nothing', () => {
    const page = readFileSync(OPTIONS.out.replace(/json$/, 'html'), 'utf8')
    expect(page.match(/<svg/g)).toHaveLength(6)
    expect(page.match(/<polyline/g)).toHaveLength(12)
    expect(page).not.toMatch(/NaN|undefined|Infinity|https?:|<script|src=/)
  })

  it('is found beside its model, and by name', async () => {
    await withRunner(MODEL, {}, async (runner) => {
      using sequence = runner.newSequence(512, 'chai')
      await runner.run([{ sequence, tokens: [5, 6, 7, 8, 9], logits: 'none' }])
      expect(sequence.cache.layers.map(({ k }) => k.layout.nHead)).toEqual(report.clusters)
      expect(runner.attention(`chai:file=${OPTIONS.out}`).spec).toBe(`chai:file=${OPTIONS.out}`)
    })
  })

  it('has a name for strangers, who may not try paths', async () => {
    await withRunner(MODEL, { adapters: { ours: OPTIONS.out } }, async (runner) => {
      for (const setting of ['chai', 'chai:file=ours']) expect(runner.attention(setting, 'stranger').spec).toBe(setting)
      expect(() => runner.attention('chai:file=/tmp', 'stranger')).toThrow("this server knows no file '/tmp': it knows 'ours'")
      expect(() => runner.attention(`chai:file=${OPTIONS.out}`, 'stranger')).toThrow('this server knows no file')
    })
  })

  it('is refused by another model', async () => {
    const other = join(FOLDER, 'other.gguf')
    await editGguf(BUNDLED_GGUF, other, { vectors: { other: new Float32Array(8) } })
    copyFileSync(OPTIONS.out, calibrationPath(other))
    await withRunner(other, {}, async (runner) => {
      expect(() => runner.attention('chai')).toThrow(`${calibrationPath(other)} was made for another model`)
    })
  })

  it.each([
    ['not JSON', () => 'clusters', 'it is not JSON'],
    ['of another kind', () => JSON.stringify({ ...report, kind: 'lisa' }), 'kind is not as it should be'],
    ['without a model', () => JSON.stringify({ ...report, base: '../..' }), 'base is not as it should be'],
    ['with absurd clusters', () => JSON.stringify({ ...report, clusters: [0, 1, 2] }), 'clusters.0 is not as it should be'],
    ['for fewer layers', () => JSON.stringify({ ...report, clusters: [4] }), 'does not fit its layers and heads'],
    [
      'with too many clusters',
      () => JSON.stringify({ ...report, clusters: Array(6).fill(9) }),
      'does not fit its layers and heads',
    ],
  ])('%s is refused', async (_, text, reason) => {
    const path = join(FOLDER, 'damaged.json')
    await withRunner(MODEL, {}, async (runner) => {
      writeFileSync(path, text())
      expect(() => runner.attention(`chai:file=${path}`)).toThrow(reason)
      expect(() => runner.attention(`chai:file=${FOLDER}`)).toThrow('is no calibration')
      expect(() => runner.attention(`chai:file=${path}.missing`)).toThrow('cannot be read')
    })
  })

  it('is asked for where there is none', async () => {
    const alone = join(FOLDER, 'alone.gguf')
    symlinkSync(BUNDLED_GGUF, alone)
    await withRunner(alone, {}, async (runner) => {
      expect(() => runner.attention('chai')).toThrow('make it with kvasir calibrate chai -m ')
    })
  })

  it('comes with the bundled model', async () => {
    await withRunner(BUNDLED_GGUF, {}, async (runner) => expect(runner.attention('chai').spec).toBe('chai'))
  })
})

describe('calibrating', () => {
  const out = join(FOLDER, 'stopped.json')
  const left = () => readdirSync(FOLDER).filter((name) => name.startsWith('stopped'))

  it('leaves nothing when it is stopped', async () => {
    for (const at of [0.1, 0.5]) {
      const stop = new AbortController()
      const onProgress = (done: number) => {
        if (done >= at) stop.abort()
      }
      await expect(calibrateChai({ ...OPTIONS, out, onProgress, signal: stop.signal })).rejects.toMatchObject({ code: 'aborted' })
    }
    expect(left()).toEqual([])
  })

  it.each([
    ['a window beyond its context', { file: HELDOUT, nTokens: 5000 }, 'usage'],
    ['a text that is too short', { file: SHORT }, 'data_unusable'],
    ['no such text', { file: join(FOLDER, 'none.txt') }, 'file_error'],
    ['no such folder to write to', { out: join(FOLDER, 'none', 'out.json'), lossSamples: 0 }, 'file_error'],
  ])('%s is refused', async (_, wrong, code) => {
    await expect(calibrateChai({ ...OPTIONS, out, ...wrong })).rejects.toMatchObject({ code })
    expect(left()).toEqual([])
  })
})

it('kvasir calibrate chai writes both files and says what it found', async () => {
  const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  const out = join(FOLDER, 'cli.json')
  await main([
    'calibrate',
    'chai',
    '-m',
    MODEL,
    '-f',
    TEXT,
    '-o',
    out,
    '--samples',
    '2',
    '--loss-samples',
    '0',
    '-c',
    '32',
    '-t',
    '1',
  ])
  expect(written.mock.calls.flat().join('')).toMatch(/cli\.json: (\d, ){5}\d clusters of 8 heads, \d+\.\d% of the keys/)
  written.mockRestore()
  expect(readdirSync(FOLDER).filter((name) => name.startsWith('cli.'))).toEqual(['cli.html', 'cli.json'])
  expect(JSON.parse(readFileSync(out, 'utf8'))).toMatchObject({ kind: 'chai', samples: 2 })
})
