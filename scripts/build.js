/**
 * Builds dist/: the library and command line by tsc, the web page by vite. Plain JavaScript, because it is what runs when
 * nothing is built yet. `node scripts/build.js` builds what is missing or stale, `--force` from scratch.
 */
import { spawn } from 'node:child_process'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const STAMP = join(ROOT, 'dist', '.built')
const LOCK = join(ROOT, 'node_modules', '.kvasir-build')
const SOURCES = ['src', 'web', 'package.json', 'tsconfig.json', 'tsconfig.build.json']
const BIN = (name, file) => join(ROOT, 'node_modules', name, file)

/**
 * Builds unless dist/ is newer than everything it is made of. Processes that start together wait for the one that builds.
 * Where nothing can be written, an older build has to do.
 */
export async function ensureBuilt() {
  if (isFresh() || (existsSync(STAMP) && !isWritable(ROOT))) return
  const release = await lock()
  try {
    if (!isFresh()) await build()
  } finally {
    release()
  }
}

async function build() {
  const tsc = BIN('typescript', 'bin/tsc')
  if (!existsSync(tsc)) {
    throw new Error('kvasir is not built, and the tools to build it are not installed: run `npm ci` (without --omit=dev)')
  }
  process.stderr.write('kvasir: building dist/ (once)\n')
  const start = new Date()
  await node(tsc, '-p', 'tsconfig.build.json')
  if (existsSync(join(ROOT, 'web', 'vite.config.ts'))) {
    await node(BIN('vite', 'bin/vite.js'), 'build', '-c', 'web/vite.config.ts', '--logLevel', 'warn')
  }
  mkdirSync(join(ROOT, 'dist'), { recursive: true })
  writeFileSync(STAMP, '')
  utimesSync(STAMP, start, start) // what was edited meanwhile is newer
}

/** Runs a tool of ours; what it prints goes to stderr, for stdout belongs to the command that asked for the build. */
function node(...args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 2, 2] })
    child.on('error', reject)
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`the build failed: ${args.join(' ')}`))))
  })
}

function isFresh() {
  if (!existsSync(STAMP)) return false
  const built = statSync(STAMP).mtimeMs
  return SOURCES.every((path) => newest(join(ROOT, path)) <= built)
}

function isWritable(path) {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Time of the last change at or below `path`, in ms; folders count, so that removed files do. */
function newest(path) {
  if (!existsSync(path)) return 0
  const { mtimeMs } = statSync(path)
  if (!statSync(path).isDirectory()) return mtimeMs
  return Math.max(mtimeMs, ...readdirSync(path).map((entry) => newest(join(path, entry))))
}

/** One build at a time; a lock whose process has died is taken over. */
async function lock() {
  for (;;) {
    try {
      writeFileSync(LOCK, String(process.pid), { flag: 'wx' })
      return () => rmSync(LOCK, { force: true })
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    if (!isAlive(holder())) rmSync(LOCK, { force: true })
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

function holder() {
  try {
    return Number(readFileSync(LOCK, 'utf8'))
  } catch {
    return process.pid // it was released meanwhile
  }
}

function isAlive(pid) {
  if (pid === 0) return true // being written
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--force')) rmSync(join(ROOT, 'dist'), { recursive: true, force: true })
  await ensureBuilt().catch((error) => {
    process.stderr.write(`kvasir: ${error.message}\n`)
    process.exitCode = 1
  })
}
