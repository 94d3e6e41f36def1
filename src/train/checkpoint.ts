/**
 * A run on disk: a GGUF file of the trained parameters, AdamW's moments, how far it is, and the settings that must be the same
 * to go on. It replaces the one before only when it is whole. There is no random state: the order of the text follows from the
 * seed and the step.
 */
import { existsSync } from 'node:fs'
import { KvasirError } from '../core/errors.ts'
import { F32 } from '../ggml/types.ts'
import { openGguf } from '../weights/gguf.ts'
import { GgufWriter } from '../weights/gguf-writer.ts'
import { readTensor } from '../weights/read-tensor.ts'
import { decodePoints, encodePoints, type Point } from './curve.ts'
import type { Parameters } from './parameters.ts'

/** How far a run is. */
export interface RunState {
  /** Steps done. */
  readonly step: number
  /** Seconds of training, over all of its sessions. */
  readonly seconds: number
  readonly curve: readonly Point[]
}

/** What decides the course of a run; two runs with the same go the same way. */
export type RunSettings = { readonly [name: string]: string | number | boolean | null }

const KIND = 'kvasir-checkpoint'
const KEYS = {
  kind: 'general.architecture',
  settings: 'kvasir.train.settings',
  step: 'kvasir.train.step',
  seconds: 'kvasir.train.seconds',
  curve: 'kvasir.train.curve',
} as const

/** The blocks of a checkpoint, by name. */
function blocks(parameters: Parameters) {
  return parameters.trained().flatMap(({ name, ne, data, trained }) => [
    { name, ne, data },
    { name: `m/${name}`, ne, data: trained!.m.data },
    { name: `v/${name}`, ne, data: trained!.v.data },
  ])
}

/** Errors: `file_error`; the checkpoint before is then as it was. */
export async function saveCheckpoint(
  path: string,
  parameters: Parameters,
  { settings, state }: { readonly settings: RunSettings; readonly state: RunState },
): Promise<void> {
  const all = blocks(parameters)
  await using writer = await GgufWriter.create(path, {
    metadata: [
      [KEYS.kind, { kind: 'str', value: KIND }],
      [KEYS.settings, { kind: 'str', value: JSON.stringify(settings) }],
      [KEYS.step, { kind: 'u32', value: state.step }],
      [KEYS.seconds, { kind: 'f64', value: state.seconds }],
      [KEYS.curve, { kind: 'f64[]', value: encodePoints(state.curve) }],
    ],
    tensors: all.map(({ name, ne }) => ({ name, type: F32, ne })),
  })
  for (const { data } of all) await writer.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
  await writer.finish()
}

export function hasCheckpoint(path: string): boolean {
  return existsSync(path)
}

/**
 * Sets the parameters and their moments to what they were.
 * Errors: `checkpoint_mismatch` for another run's, `model_invalid` for a damaged file.
 */
export function loadCheckpoint(path: string, parameters: Parameters, settings: RunSettings): RunState {
  const fail = (reason: string): never => {
    throw new KvasirError('checkpoint_mismatch', { path, reason })
  }
  using source = openGguf(path)
  if (source.metadata(KEYS.kind) !== KIND) fail('it is no checkpoint')
  const saved = JSON.parse(String(source.metadata(KEYS.settings))) as RunSettings
  const names = new Set([...Object.keys(saved), ...Object.keys(settings)])
  const other = [...names].filter((name) => saved[name] !== settings[name])
  const change = (name: string) => `${name} was ${JSON.stringify(saved[name])} and is ${JSON.stringify(settings[name])}`
  if (other.length > 0) fail(other.map(change).join('; '))
  const all = blocks(parameters)
  for (const { name, ne } of all) {
    const info = source.tensors.get(name)
    if (!info || info.type !== F32 || !info.ne.every((n, i) => n === ne[i])) fail(`its '${name}' is missing or of another shape`)
  }
  for (const { name, data } of all) data.set(new Float32Array(readTensor(source, source.tensors.get(name)!).buffer))
  const number = (key: string): number => {
    const value = source.metadata(key)
    return typeof value === 'number' ? value : fail(`its ${key} is missing`)
  }
  const curve = decodePoints((source.metadata(KEYS.curve) ?? []) as number[])
  return { step: number(KEYS.step), seconds: number(KEYS.seconds), curve }
}
