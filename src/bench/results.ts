/** Laps → rows. */
import os from 'node:os'
import { basename } from 'node:path'
import { ggml } from '../ggml/library.ts'
import { typeName } from '../ggml/types.ts'
import type { WeightSource } from '../weights/source.ts'
import type { BenchOptions } from './bench-options.ts'
import type { Entrant, Lap, Test } from './race.ts'
import type { BatchedColumns, BenchRow } from './row.ts'
import { mean, median, standardDeviation } from './statistics.ts'

/** What is the same in all rows of a run. */
export type RowHead = Pick<
  BenchRow,
  | 'build_commit'
  | 'cpu_info'
  | 'backends'
  | 'model_filename'
  | 'model_type'
  | 'model_size'
  | 'model_n_params'
  | 'n_batch'
  | 'n_ubatch'
  | 'n_threads'
  | 'type_k'
  | 'type_v'
>

export function rowHead(source: WeightSource, options: BenchOptions, nThreads: number): RowHead {
  const tensors = [...source.tensors.values()]
  const count = (ne: readonly number[]): number => ne.reduce((product, n) => product * n, 1)
  const nParams = tensors.reduce((sum, { ne }) => sum + count(ne), 0)
  const bytesByType = new Map<number, number>()
  for (const { type, nBytes } of tensors) bytesByType.set(type, (bytesByType.get(type) ?? 0) + nBytes)
  const [mainType] = [...bytesByType].toSorted(([, a], [, b]) => b - a)[0] ?? [0]
  const arch = String(source.metadata('general.architecture') ?? source.metadata('model_type') ?? '?')
  return {
    build_commit: `ggml ${ggml().ggml_version()}`,
    cpu_info: os.cpus()[0]?.model.trim() ?? '',
    backends: 'CPU',
    model_filename: basename(source.path),
    model_type: `${arch} ${formatParams(nParams)} ${typeName(mainType)}`,
    model_size: tensors.reduce((sum, { nBytes }) => sum + nBytes, 0),
    model_n_params: nParams,
    n_batch: options.nBatch,
    n_ubatch: options.nUbatch,
    n_threads: nThreads,
    type_k: options.typeK,
    type_v: options.typeV,
  }
}

/** As llama-bench writes them: `5.87 M`, `1.24 B`. */
export function formatParams(n: number): string {
  return n < 1e9 ? `${(n / 1e6).toFixed(2)} M` : `${(n / 1e9).toFixed(2)} B`
}

/** A row per entrant, but of several llama.cpp entrants only the one with the fastest median. */
export function rowsOf(
  entrants: readonly Entrant[],
  test: Test,
  run: { head: RowHead; nSeq: number; batched: boolean },
): BenchRow[] {
  const rows = entrants.map((entrant) => rowOf(entrant, test, run))
  const rivals = rows.filter(({ engine }) => engine === 'llama.cpp').toSorted((a, b) => b.median_ts - a.median_ts)
  const rival = rivals[0]
  const ours = rows.filter(({ engine }) => engine === 'kvasir')
  if (rival === undefined) return ours
  return [...ours.map((row) => ({ ...row, vs_llama_cpp: row.median_ts / rival.median_ts })), rival]
}

function rowOf(
  { contender, laps }: Entrant,
  test: Test,
  { head, nSeq, batched }: { head: RowHead; nSeq: number; batched: boolean },
): BenchRow {
  const nTokens = nSeq * (test.nPrompt + test.nGen)
  const seconds = laps.map(({ prompt, generation }) => prompt + generation)
  const speeds = seconds.map((s) => nTokens / s)
  const ns = seconds.map((s) => Math.round(s * 1e9))
  const last = laps.at(-1)!
  return {
    ...head,
    flash_attn: contender.flashAttn,
    n_prompt: test.nPrompt,
    n_gen: test.nGen,
    n_depth: test.nDepth,
    test_time: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    avg_ns: Math.round(mean(ns)),
    stddev_ns: Math.round(standardDeviation(ns)),
    avg_ts: mean(speeds),
    stddev_ts: standardDeviation(speeds),
    samples_ns: ns,
    samples_ts: speeds,
    engine: contender.engine,
    attention: contender.attention,
    median_ns: Math.round(median(ns)),
    median_ts: nTokens / median(seconds),
    kv_bytes: last.kvBytes,
    rss_bytes: last.rssBytes,
    outside_compute: outsideCompute(laps, seconds),
    vs_llama_cpp: null,
    batched: batched ? batchedColumns(laps, test, nSeq) : null,
  }
}

function outsideCompute(laps: readonly Lap[], seconds: readonly number[]): number | null {
  if (laps.some(({ compute }) => compute === null)) return null
  return 1 - mean(laps.map(({ compute }) => compute!)) / mean(seconds)
}

function batchedColumns(laps: readonly Lap[], test: Test, nSeq: number): BatchedColumns {
  const tPp = median(laps.map(({ prompt }) => prompt))
  const tTg = median(laps.map(({ generation }) => generation))
  return {
    pp: test.nPrompt,
    tg: test.nGen,
    pl: nSeq,
    n_kv: nSeq * (test.nDepth + test.nPrompt + test.nGen),
    t_pp: tPp,
    speed_pp: test.nPrompt === 0 ? 0 : (nSeq * test.nPrompt) / tPp,
    t_tg: tTg,
    speed_tg: test.nGen === 0 ? 0 : (nSeq * test.nGen) / tTg,
    t: tPp + tTg,
    speed: (nSeq * (test.nPrompt + test.nGen)) / (tPp + tTg),
  }
}
