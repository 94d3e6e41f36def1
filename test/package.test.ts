/** What `npm pack` makes, used as a stranger would: in an empty project, with nothing but the declared dependencies. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ensureBuilt } from '../scripts/build.js'

const run = promisify(execFile)
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TSC = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const project = mkdtempSync(join(tmpdir(), 'kvasir-package-'))
let tarball: string
let files: string[]

beforeAll(async () => {
  await ensureBuilt()
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', project], { cwd: ROOT })
  const [packed] = Object.values(JSON.parse(stdout)) as { filename: string; files: { path: string }[] }[]
  tarball = join(project, packed!.filename)
  files = packed!.files.map(({ path }) => path)

  const modules = join(project, 'node_modules')
  mkdirSync(join(modules, 'kvasir'), { recursive: true })
  await run('tar', ['-xzf', tarball, '-C', join(modules, 'kvasir'), '--strip-components=1'])
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies, '@types/node': '' })) {
    const installed = join(ROOT, 'node_modules', name)
    if (!existsSync(installed)) continue // of another platform
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(installed, join(modules, name))
  }
  mkdirSync(join(modules, '.bin'))
  symlinkSync(join('..', 'kvasir', manifest.bin.kvasir), join(modules, '.bin', 'kvasir'))
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'stranger', type: 'module', private: true }))
}, 120_000)

afterAll(() => rmSync(project, { recursive: true, force: true }))

test('it holds what it needs and nothing else', () => {
  const expected =
    /^(dist\/.+\.(js|d\.ts)|dist\/web\/.+|bin\/kvasir\.js|models\/README\.md|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/
  expect(files.filter((path) => !expected.test(path))).toEqual([
    'models/kvasir-demo/kvasir-demo-f16.chai.json',
    'models/kvasir-demo/kvasir-demo-f16.gguf',
  ])
  expect(files).toEqual(
    expect.arrayContaining(['dist/index.js', 'dist/index.d.ts', 'dist/cli/main.js', 'dist/web/index.html', 'LICENSE']),
  )
  expect(files.filter((path) => path.endsWith('.map'))).toEqual([])
})

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: join(project, 'node_modules', 'kvasir'), pack: false, strict: true })
  expect(messages).toEqual([])
})

test('runtime dependencies are the eight of the README, and the libraries of each platform at one version', () => {
  const names = Object.keys(manifest.dependencies)
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  expect(names).toHaveLength(8)
  expect(names.filter((name) => !readme.includes(`\`${name}\``))).toEqual([])
  expect(new Set(Object.values(manifest.optionalDependencies))).toEqual(new Set(['3.22.1']))
})

test('the lock file names no registry and has every platform', () => {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'))
  const packages = lock.packages as Record<string, { resolved?: string; optionalDependencies?: Record<string, string> }>
  expect(Object.values(packages).filter(({ resolved }) => resolved !== undefined)).toEqual([])
  const optional = Object.values(packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}))
  expect(optional.filter((name) => !Object.keys(packages).some((key) => key.endsWith(`node_modules/${name}`)))).toEqual([])
})

test('its types are found and checked', async () => {
  const code = `import { type Completion, KvasirError, load, startServer } from 'kvasir'
    await using model = await load(undefined, { nCtx: 256 })
    const answer: Completion = await model.complete({ prompt: 'Hello', maxTokens: 4 })
    const count: number = answer.usage.completion_tokens
    // @ts-expect-error a number is wanted
    model.generate({ prompt: 'Hello', temperature: 'hot' })
    try { await startServer({ load: async () => model.engine }) } catch (error) { if (error instanceof KvasirError) console.log(error.code, count) }
  `
  writeFileSync(join(project, 'typed.ts'), code)
  const options = [
    '--strict',
    '--module',
    'nodenext',
    '--target',
    'es2023',
    '--lib',
    'es2023,esnext.disposable',
    '--types',
    'node',
  ]
  const { stdout } = await run(process.execPath, [TSC, ...options, '--skipLibCheck', '--noEmit', 'typed.ts'], {
    cwd: project,
  }).catch((error: { stdout: string }) => error)
  expect(stdout).toBe('')
})

test('it generates as a library', async () => {
  const code = `import { load } from 'kvasir'
    const model = await load(undefined, { nThreads: 1 })
    const { tokens, usage } = await model.complete({ prompt: 'The access code', maxTokens: 5, ignoreEos: true })
    await model.close()
    console.log(JSON.stringify({ tokens, count: usage.completion_tokens }))
  `
  writeFileSync(join(project, 'use.js'), code)
  const { stdout } = await run(process.execPath, ['use.js'], { cwd: project })
  const { tokens, count } = JSON.parse(stdout)
  expect(tokens).toHaveLength(5)
  expect(count).toBe(5)
})

test('it generates on the command line', async () => {
  const args = ['--offline', 'kvasir', 'run', '-p', 'Where is the lamp?', '-n', '8', '-t', '1', '--ignore-eos', '--json']
  const { stdout, stderr } = await run('npx', args, { cwd: project })
  expect(JSON.parse(stdout).tokens).toHaveLength(8)
  expect(stderr).toBe('')
})
