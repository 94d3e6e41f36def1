/** The program itself, as a person starts it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { ensureBuilt } from '../../scripts/build.js'
import { METHODS } from '../../src/attention/registry.ts'
import { COMMANDS } from '../../src/cli/commands.ts'

const BIN = fileURLToPath(new URL('../../bin/kvasir.js', import.meta.url))
const FOLDER = mkdtempSync(join(tmpdir(), 'kvasir-cli-'))
const QUESTION = 'What is the access code for the calm otter?'
const ANSWER = 'The access code for the calm otter is 40412.'
const GREEDY = ['--temp', '0', '-n', '48', '-c', '512']

interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

interface Started {
  readonly child: ChildProcess
  readonly outcome: Promise<Outcome>
  /** The first text on stdout that matches, from the beginning. */
  readonly heard: (pattern: RegExp) => Promise<RegExpExecArray>
}

function start(args: readonly string[], env: Record<string, string> = {}): Started {
  // One thread: tests run side by side, and threads that wait for each other spin.
  const child = spawn(process.execPath, [BIN, ...args], { env: { ...process.env, KVASIR_ARG_THREADS: '1', ...env } })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (data) => (stdout += data))
  child.stderr.on('data', (data) => (stderr += data))
  onTestFinished(() => void child.kill('SIGKILL'))
  const outcome = new Promise<Outcome>((resolve) => {
    // An edit during the tests makes it build again.
    child.on('close', (status) => resolve({ status, stdout, stderr: stderr.replace(/^kvasir: building.*\n/, '') }))
  })
  const heard = (pattern: RegExp) =>
    vi.waitFor(() => pattern.exec(stdout) ?? expect.unreachable(`no ${pattern} in: ${stdout}${stderr}`), 30_000)
  return { child, outcome, heard }
}

/** Runs it with `input` on stdin. */
function kvasir(args: readonly string[], input = '', env: Record<string, string> = {}): Promise<Outcome> {
  const { child, outcome } = start(args, env)
  child.stdin!.end(input)
  return outcome
}

beforeAll(ensureBuilt, 120_000)
afterAll(() => rmSync(FOLDER, { recursive: true, force: true }))

describe('help', () => {
  test.each(Object.keys(COMMANDS))('%s --help shows options and an example', async (name) => {
    const { status, stdout, stderr } = await kvasir([...name.split(' '), '--help'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(new RegExp(`Examples?:\n  (.*\\| )?kvasir ${name}`))
    expect(stdout).toContain('--verbose')
  })

  test('alone it lists the commands, and that is a wrong use', async () => {
    const [alone, asked] = await Promise.all([kvasir([]), kvasir(['--help'])])
    expect([alone.status, asked.status]).toEqual([2, 0])
    expect(alone.stdout).toBe(asked.stdout)
    for (const name of Object.keys(COMMANDS)) expect(asked.stdout).toContain(`  ${name} `)
  })

  test('it knows its version', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    expect((await kvasir(['--version'])).stdout).toBe(`${version}\n`)
  })
})

test.each([
  [['rnu'], 2, "kvasir: unknown command 'rnu'; did you mean 'run'?"],
  [['-p', 'hello'], 2, 'kvasir: the command must come before -p'],
  [['run', '-p', 'a', '-n', '-5'], 2, 'kvasir: --n-predict -5: must be -1 or more'],
  [['run', '-p', 'a', '--tmep', '0'], 2, 'kvasir: unknown option --tmep; did you mean --temp?'],
  [['run'], 2, 'kvasir: there is no prompt'],
  [['run', '-p', 'a', 'b'], 2, "kvasir: unexpected argument 'b'"],
  [['run', '-p', 'a', '--attention', 'oracle'], 2, "kvasir: attention: unknown method 'oracle'; known: dense, "],
  [['run', '-p', 'a', '-m', 'nowhere.gguf', '--attention', 'streaming:window=0'], 2, 'window is 0, and should be a whole number'],
  [['serve', '--attention', 'streaming+streaming'], 2, 'answer the same question (keep)'],
  [['bench', '-m', 'nowhere.gguf', '--attention', 'dense,streaming:sink=4,breadth=2'], 2, "streaming has no option 'breadth'"],
  [['methods', 'oracle'], 2, "unknown method 'oracle'"],
  [['train'], 2, 'kvasir: say what to train: kvasir train l'],
  [['train', 'lckv', '-o', 'x.gguf'], 2, 'kvasir: give a text with -f and a file to write with -o'],
  [
    ['train', 'lckv', '-f', 'nowhere.txt', '-o', 'x.gguf'],
    1,
    'kvasir: these layers cannot be trained: say with --layers which of the 6 layers',
  ],
  [['train', 'lckv', '--layers', '0_4x4_5', '-f', 'nowhere.txt', '-o', 'x.gguf'], 1, "kvasir: cannot read 'nowhere.txt': "],
  [['train', 'lisa', '-f', 'nowhere.txt'], 2, 'kvasir: give a text with -f and a file to write with -o'],
  [
    ['train', 'lisa', '--layers', '0-2', '-f', 'nowhere.txt', '-o', 'x.gguf'],
    1,
    'kvasir: these layers cannot be trained: layer 0',
  ],
  [['run', '-p', 'a', '--attention', 'lisa'], 2, 'lisa cannot serve this model: it needs what was learnt for the model'],
  [['run', '-p', 'a', '-m', 'nowhere.gguf'], 1, "kvasir: no model at 'nowhere.gguf': no such file or folder"],
  [['run', '-f', 'nowhere.txt'], 1, "kvasir: cannot read 'nowhere.txt': "],
  [['run', '-p', 'word '.repeat(600), '-c', '256'], 1, 'kvasir: the request exceeds the available context size: '],
  [['inspect', fileURLToPath(import.meta.url)], 1, 'cannot be read as a model: '],
  [['synth', '--like', 'gpt-5', '-o', 'x.gguf'], 2, 'kvasir: --like gpt-5: must be '],
  [['synth', '--like', 'smollm2-135m', '-o', '/nowhere/x.gguf'], 1, "kvasir: cannot write '/nowhere/x.gguf': "],
  [['bench', '-p', '0', '-n', '0'], 2, 'kvasir: nothing to measure'],
])('%j is one clear error', async (args, status, message) => {
  const outcome = await kvasir(args)
  expect(outcome).toMatchObject({ status, stdout: '' })
  const lines = outcome.stderr.trimEnd().split('\n')
  expect(lines).toHaveLength(2)
  expect(lines[0]).toContain(message)
  expect(lines[1]).toMatch(/^ {8}\S/)
})

describe('run', () => {
  test('answers from a file and a prompt', async () => {
    const file = join(FOLDER, 'facts.txt')
    writeFileSync(file, 'The access code for the calm otter is 40412.\n')
    expect(await kvasir(['run', '-f', file, '-p', QUESTION, ...GREEDY])).toEqual({ status: 0, stdout: `${ANSWER}\n`, stderr: '' })
  })

  test('answers what comes by a pipe', async () => {
    const { stdout } = await kvasir(['run', ...GREEDY], `${ANSWER}\n${QUESTION}`)
    expect(stdout).toBe(`${ANSWER}\n`)
  })

  test('takes its options from the environment too', async () => {
    const env = { KVASIR_ARG_N_PREDICT: '3', KVASIR_ARG_IGNORE_EOS: '1', KVASIR_ARG_JSON: '1' }
    expect(JSON.parse((await kvasir(['run', '-p', 'Hello'], '', env)).stdout).tokens).toHaveLength(3)
  })

  test('prints one JSON object', async () => {
    const { stdout } = await kvasir(['run', '--raw', '-p', 'The access code', '-n', '4', '--ignore-eos', '--seed', '7', '--json'])
    const answer = JSON.parse(stdout)
    expect(Object.keys(answer)).toEqual(expect.arrayContaining(['text', 'tokens', 'usage', 'timings', 'attention']))
    expect(answer.tokens).toHaveLength(4)
    expect(answer.usage).toMatchObject({ completion_tokens: 4 })
    expect(answer.attention).toMatchObject({ method: 'dense', density: 1, evicted_tokens: 0 })
  })

  test('attention is a setting, also from the environment', async () => {
    const flags = ['run', '--raw', '-p', 'word '.repeat(300), '-n', '2', '--ignore-eos', '--json']
    const [flag, env] = await Promise.all([
      kvasir([...flags, '--attention', 'streaming:sink=4,window=64']),
      kvasir(flags, '', { KVASIR_ARG_ATTENTION: 'streaming:window=64' }),
    ])
    for (const { stdout } of [flag, env]) {
      expect(JSON.parse(stdout).attention).toMatchObject({ method: 'streaming:window=64', kept_tokens: 68 })
    }
  })

  test('the same seed says the same, another one something else', async () => {
    const say = (seed: string) =>
      kvasir(['run', '--raw', '-p', 'The', '-n', '16', '--temp', '1.5', '--ignore-eos', '--seed', seed])
    const [a, b, c] = await Promise.all([say('1'), say('1'), say('2')])
    expect(a.stdout).toBe(b.stdout)
    expect(a.stdout).not.toBe(c.stdout)
  })

  test('Ctrl-C stops it and keeps the text', async () => {
    const { child, outcome, heard } = start(['run', '--raw', '-p', 'The', '-n', '4000', '--ignore-eos'])
    await heard(/\S+ \S+/)
    child.kill('SIGINT')
    const { status, stdout, stderr } = await outcome
    expect({ status, stderr }).toEqual({ status: 130, stderr: '' })
    expect(stdout).toMatch(/\S+ [\s\S]*\n$/)
  })

  test('a reader that has enough ends it without noise', async () => {
    const { child, outcome, heard } = start(['run', '--raw', '-p', 'The', '-n', '4000', '--ignore-eos'])
    await heard(/\S/)
    child.stdout!.destroy()
    expect(await outcome).toMatchObject({ status: 0, stderr: '' })
  })
})

test('chat keeps the conversation, and knows its commands', async () => {
  const lines = [`/file ${join(FOLDER, 'note.txt')}`, QUESTION, '/hlep', '/system', QUESTION, '/clear', '/exit', 'never read']
  writeFileSync(join(FOLDER, 'note.txt'), ANSWER)
  const { status, stdout, stderr } = await kvasir(['chat', ...GREEDY], lines.join('\n'))
  expect({ status, stdout }).toEqual({ status: 0, stdout: `${ANSWER}\n${ANSWER}\n` })
  expect(stderr).toMatch(/^\d+ tokens will go before your next message\nthere is no \/hlep; did you mean \/help\?\n$/)
})

describe('serve', () => {
  test('listens, answers, and stops when it is told to', async () => {
    const { child, outcome, heard } = start(['serve', '--port', '0', '-c', '256'])
    const [, url] = await heard(/listening on (http:\/\/127\.0\.0\.1:\d+)/)
    await heard(/context of 256 tokens/)
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ok' })
    expect(await (await fetch(url!)).text()).toContain('<html')
    child.kill('SIGTERM')
    expect(await outcome).toMatchObject({ status: 0, stderr: '' })
  })

  test('says which port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => other.once('listening', resolve))
    const { port } = other.address() as AddressInfo
    const { status, stderr } = await kvasir(['serve', '--port', String(port)])
    other.close()
    expect(status).toBe(1)
    expect(stderr).toContain(`cannot listen on 127.0.0.1:${port}`)
  })

  test('a model that cannot be loaded ends it', async () => {
    const { status, stderr } = await kvasir(['serve', '--port', '0', '-m', 'nowhere.gguf'])
    expect(status).toBe(1)
    expect(stderr).toContain("no model at 'nowhere.gguf'")
  })
})

test('tokenize prints ids and their texts', async () => {
  const [table, ids, json] = await Promise.all([
    kvasir(['tokenize', '-p', 'calm otter<|end|>', '--show-count']),
    kvasir(['tokenize', '-p', 'calm otter<|end|>', '--ids']),
    kvasir(['tokenize', '-p', 'calm otter<|end|>', '--json', '--no-parse-special']),
  ])
  const tokens: number[] = JSON.parse(ids.stdout)
  expect(table.stdout).toContain(`${tokens.length} tokens`)
  expect(table.stdout).toContain('"<|end|>"')
  const plain = JSON.parse(json.stdout)
  expect(plain.count).toBeGreaterThan(tokens.length)
  expect(plain.pieces).toHaveLength(plain.count)
})

describe('inspect', () => {
  test('shows the bundled model and what a context needs', async () => {
    const { stdout } = await kvasir(['inspect', '-c', '32k', '--tensors'])
    for (const text of [
      '6 layers, width 256, 8 heads of 32',
      '5,868,800',
      'one sequence of 32768 tokens',
      '<|assistant|>',
      'blk.5.ffn_up.weight',
    ])
      expect(stdout).toContain(text)
  })

  test('reads what synth writes', async () => {
    const path = join(FOLDER, 'random.gguf')
    const made = await kvasir([
      'synth',
      '--like',
      'smollm2-135m',
      '--layers',
      '1',
      '--vocab',
      '5000',
      '--type',
      'q8_0',
      '-o',
      path,
    ])
    expect(made).toMatchObject({ status: 0, stderr: '' })
    const report = JSON.parse((await kvasir(['inspect', path, '--json', '-c', '1k'])).stdout)
    expect(report).toMatchObject({ architecture: 'llama', hyperparameters: { n_layer: 1, n_vocab: 5000, n_head_kv: 3 } })
    expect(report.types[0]).toMatchObject({ type: 'q8_0' })
    expect(report.memory.cache_bytes_per_token).toBe(2 * 3 * 64 * 2)
    expect(report.memory.cache_bytes).toBe(1024 * report.memory.cache_bytes_per_token)
  })
})

describe('methods', () => {
  test('lists them by axis', async () => {
    const { status, stdout } = await kvasir(['methods'])
    expect(status).toBe(0)
    expect(stdout).toMatch(/dense .*\n(.*\n)*keep: which rows stay in the cache\n(.*\n)* +streaming /)
    for (const { name } of METHODS) expect(stdout).toContain(`  ${name} `)
  })

  test.each(METHODS.map(({ name }) => name))('%s: its options, with ranges and defaults', async (name) => {
    const [text, json] = await Promise.all([kvasir(['methods', name]), kvasir(['methods', name, '--json'])])
    const info = JSON.parse(json.stdout)
    expect(text.stdout).toContain(`${name}: `)
    expect(text.stdout).toContain('--attention')
    for (const [option, value] of Object.entries(info.defaults)) {
      expect(text.stdout).toMatch(new RegExp(`^  ${option} .*(\n  {4,}.*)*default`, 'm'))
      expect(text.stdout.replaceAll(/\s+/g, ' ')).toContain(`default ${String(value)}`)
    }
  })

  test('dense is told too', async () => {
    expect((await kvasir(['methods', 'dense'])).stdout).toContain('no method')
    const names = JSON.parse((await kvasir(['methods', '--json'])).stdout).map(({ name }: { name: string }) => name)
    expect(names).toContain('streaming')
  })
})

test('bench measures and prints llama-bench rows', async () => {
  const { status, stdout } = await kvasir(['bench', '-p', '32', '-n', '4', '-r', '2', '-o', 'json'])
  expect(status).toBe(0)
  const rows = JSON.parse(stdout)
  expect(rows.map((row: { n_prompt: number; n_gen: number }) => [row.n_prompt, row.n_gen])).toEqual([
    [32, 0],
    [0, 4],
  ])
  expect(rows[0]).toMatchObject({ engine: 'kvasir', attention: 'dense', n_depth: 0 })
  expect(rows[0].samples_ns).toHaveLength(2)
})

describe('train', () => {
  const args = (steps: number, out: string): string[] => [
    ...['train', 'lckv', '--layers', '0_4x4_5', '-f', join(FOLDER, 'learn.txt'), '-o', join(FOLDER, out)],
    ...['--steps', String(steps), '-c', '16', '--windows', '1', '--forward-passes', '1', '--backward-passes', '1'],
  ]
  beforeAll(() => writeFileSync(join(FOLDER, 'learn.txt'), `${ANSWER} `.repeat(100)))

  test('writes a model that runs, and says what became of the loss', async () => {
    const { status, stdout } = await kvasir(args(2, 'learnt.gguf'))
    expect(status).toBe(0)
    expect(stdout).toMatch(
      /learnt.gguf: 2 steps in 1 min, loss on held-out text [\d.]+ before, [\d.]+ after; curve in .*\.svg\n$/,
    )
    expect(
      readdirSync(FOLDER)
        .filter((name) => name.startsWith('learnt.'))
        .toSorted(),
    ).toEqual(['learnt.gguf', 'learnt.gguf.curve.json', 'learnt.gguf.curve.svg'])
    const answer = await kvasir(['run', '-m', join(FOLDER, 'learnt.gguf'), '-p', QUESTION, '-n', '4'])
    expect(answer).toMatchObject({ status: 0, stderr: '' })
  })

  test('Ctrl-C stops it, and the same command goes on', async () => {
    const { child, outcome } = start(args(100_000, 'stopped.gguf'))
    await vi.waitFor(() => statSync(join(FOLDER, 'stopped.gguf.checkpoint')), 30_000)
    child.kill('SIGINT')
    const { status, stdout, stderr } = await outcome
    expect({ status, stdout }).toEqual({ status: 130, stdout: '' })
    const [, steps] = /stopped after step (\d+) of 100000; the same command goes on from there/.exec(stderr) ?? []
    expect(Number(steps)).toBeGreaterThanOrEqual(0)
    const again = start(args(100_000, 'stopped.gguf'))
    setTimeout(() => again.child.kill('SIGINT'), 3000)
    expect(Number(/after step (\d+)/.exec((await again.outcome).stderr)?.[1])).toBeGreaterThanOrEqual(Number(steps))
  })

  test('an adapter of no steps runs', async () => {
    const path = join(FOLDER, 'adapter.gguf')
    const { status, stdout } = await kvasir(['train', 'lisa', '--layers', '4', '--steps', '0', '-o', path])
    expect({ status, stdout }).toEqual({ status: 0, stdout: `${path}: an adapter that has learnt nothing\n` })
    const ask = ['run', '-p', QUESTION, ...GREEDY]
    const [adapted, shared] = await Promise.all(
      [`lisa:adapter=${path}`, 'sa:layers=4'].map((setting) => kvasir([...ask, '--attention', setting])),
    )
    expect(adapted).toMatchObject({ status: 0, stdout: shared!.stdout, stderr: '' })
  })
})
