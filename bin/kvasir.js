#!/usr/bin/env node
// An installed package only runs. A checkout (it has src/) builds first where the build is missing or older than the sources.
import { existsSync } from 'node:fs'

if (existsSync(new URL('../src/index.ts', import.meta.url))) {
  const { ensureBuilt } = await import('../scripts/build.js')
  await ensureBuilt().catch((error) => {
    process.stderr.write(`kvasir: ${error.message}\n`)
    process.exit(1)
  })
}
const { main } = await import('../dist/cli/main.js')
await main(process.argv.slice(2))
