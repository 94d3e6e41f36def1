/**
 * Files that a setting names: an adapter, a calibration. In the library and on the command line they may be paths, or names given
 * to paths. Requests to a server have the names that it was started with (`--adapter NAME=PATH`) and no others, so that none can
 * try paths.
 */
import type { ModelShape } from '../../core/shape.ts'
import { attentionInvalid } from './refusals.ts'

const MOST_QUOTED = 60

/** The path of the file. Errors: `attention_invalid` for a name that a server does not know. */
export function resourcePath({ base }: Pick<ModelShape, 'base'>, name: string): string {
  const resources = base?.resources ?? {}
  if (Object.hasOwn(resources, name)) return resources[name]!
  if (base?.takesPaths ?? true) return name
  const names = Object.keys(resources).map((known) => `'${known}'`)
  const known = names.length === 0 ? 'it knows none' : `it knows ${names.join(', ')}`
  throw attentionInvalid(
    `this server knows no file '${name.slice(0, MOST_QUOTED)}': ${known} (start the server with --adapter NAME=PATH)`,
  )
}
