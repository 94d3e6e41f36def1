/** What `kvasir calibrate chai` found for a model: the file, and how it is found and checked. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { z } from 'zod'
import { reasonOf } from '../core/errors.ts'
import type { ModelShape } from '../core/shape.ts'

/** Far more than any calibration takes. */
const MOST_BYTES = 16 * 2 ** 20

const schema = z.object({
  kind: z.literal('chai'),
  version: z.literal(1),
  /** Fingerprint of the model it was made for. */
  base: z.string().regex(/^[0-9a-f]{32}$/),
  /** Clusters of each layer. */
  clusters: z.array(z.int().min(1).max(4096)).min(1).max(4096),
})

/** What every reader of the file relies on; it tells more (train/chai.ts). */
export type ChaiCalibration = z.output<typeof schema>

/** `model.gguf` → `model.chai.json`. */
export function calibrationPath(model: string): string {
  return `${model.replace(/\.gguf$/, '').replace(/\/+$/, '')}.chai.json`
}

/** Clusters of each layer from `file`, or from what lies beside the model; or why not. */
export function calibratedClusters({ base, nLayer, nHeadKv }: ModelShape, file: string | undefined): readonly number[] | string {
  if (base === undefined) return 'it is no loaded model, so it needs clusters or ratio'
  const path = file ?? [calibrationPath(base.path), `${base.path}.chai.json`].find((path) => existsSync(path))
  if (path === undefined) {
    const make = `kvasir calibrate chai -m ${base.path} -f TEXT`
    return `there is no ${calibrationPath(base.path)}; make it with ${make}, or give file, clusters or ratio`
  }
  const found = read(path)
  if (typeof found === 'string') return found
  if (found.base !== base.fingerprint) return `${path} was made for another model`
  if (found.clusters.length !== nLayer || found.clusters.some((n) => n > nHeadKv))
    return `${path} does not fit its layers and heads`
  return found.clusters
}

interface Known {
  readonly stamp: string
  readonly value: ChaiCalibration | string
}

/** Requests name the same file again and again. */
const known = new Map<string, Known>()
const MOST_KNOWN = 64

function read(path: string): ChaiCalibration | string {
  try {
    const status = statSync(path)
    if (!status.isFile() || status.size > MOST_BYTES) return `${path} is no calibration`
    const stamp = `${status.ino}:${status.size}:${status.mtimeMs}`
    const before = known.get(path)
    if (before?.stamp === stamp) return before.value
    if (known.size === MOST_KNOWN) known.clear()
    const value = parse(path, readFileSync(path, 'utf8'))
    known.set(path, { stamp, value })
    return value
  } catch (error) {
    return `${path} cannot be read: ${reasonOf(error)}`
  }
}

function parse(path: string, text: string): ChaiCalibration | string {
  try {
    const result = schema.safeParse(JSON.parse(text))
    return result.success
      ? result.data
      : `${path} is no calibration: ${result.error.issues[0]!.path.join('.') || 'it'} is not as it should be`
  } catch {
    return `${path} is no calibration: it is not JSON`
  }
}
