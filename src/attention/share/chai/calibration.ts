/** What `kvasir calibrate chai` found for a model: the file, and how it is found and checked. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { z } from 'zod'
import { KvasirError, reasonOf } from '../../../core/errors.ts'
import type { ModelShape } from '../../../core/shape.ts'
import { attentionInvalid } from '../refusals.ts'
import { resourcePath } from '../resource.ts'

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

/** Clusters of each layer from `file`, or from what lies beside the model. Errors: `attention_invalid`. */
export function calibratedClusters(shape: ModelShape, file: string | undefined): readonly number[] {
  const { base, layers } = shape
  if (base === undefined) throw attentionInvalid('it is no loaded model, so it needs clusters or ratio')
  const path = file === undefined ? besideModel(base.path) : resourcePath(shape, file)
  const { base: madeFor, clusters } = read(path)
  if (madeFor !== base.fingerprint) throw attentionInvalid(`${path} was made for another model`)
  if (clusters.length !== layers.length || clusters.some((n, il) => n > layers[il]!.nHeadKv))
    throw attentionInvalid(`${path} does not fit its layers and heads`)
  return clusters
}

function besideModel(model: string): string {
  const path = calibrationPath(model)
  const found = [path, `${model}.chai.json`].find((path) => existsSync(path))
  if (found !== undefined) return found
  const make = `kvasir calibrate chai -m ${model} -f TEXT`
  throw attentionInvalid(`there is no ${path}; make it with ${make}, or give file, clusters or ratio`)
}

interface Known {
  readonly stamp: string
  readonly calibration: ChaiCalibration
}

/** Requests name the same file again and again. */
const known = new Map<string, Known>()
const MOST_KNOWN = 64

function read(path: string): ChaiCalibration {
  try {
    const status = statSync(path)
    if (!status.isFile() || status.size > MOST_BYTES) throw attentionInvalid(`${path} is no calibration`)
    const stamp = `${status.ino}:${status.size}:${status.mtimeMs}`
    const before = known.get(path)
    if (before?.stamp === stamp) return before.calibration
    if (known.size === MOST_KNOWN) known.clear()
    const calibration = parse(path, readFileSync(path, 'utf8'))
    known.set(path, { stamp, calibration })
    return calibration
  } catch (error) {
    if (error instanceof KvasirError) throw error
    throw attentionInvalid(`${path} cannot be read: ${reasonOf(error)}`)
  }
}

function parse(path: string, text: string): ChaiCalibration {
  const result = schema.safeParse(parsed(path, text))
  if (result.success) return result.data
  throw attentionInvalid(`${path} is no calibration: ${result.error.issues[0]!.path.join('.') || 'it'} is not as it should be`)
}

function parsed(path: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw attentionInvalid(`${path} is no calibration: it is not JSON`)
  }
}
