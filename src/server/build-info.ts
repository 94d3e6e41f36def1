/** Name and version of this build, as `system_fingerprint` and `build_info` report it. */
import { createRequire } from 'node:module'

const { version } = createRequire(import.meta.url)('../../package.json') as { version: string }

export const buildInfo = `kvasir-${version}`
