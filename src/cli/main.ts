/**
 * The command line: finds the command, runs it, and prints errors. Exit status: 0 done, 1 failed at run time,
 * 2 wrong usage, 130 stopped by Ctrl-C.
 */
import { readFileSync } from 'node:fs'
import { defineCommand, runCommand } from 'citty'
import { KvasirError, reasonOf } from '../core/errors.ts'
import { setLogLevel } from '../core/log.ts'
import { COMMANDS } from './commands.ts'
import { commandHelp, mainHelp } from './help.ts'
import { EXIT_INTERRUPTED } from './interrupt.ts'
import { normalise, usage } from './options.ts'
import { nearest } from './suggest.ts'

export async function main(argv: readonly string[]): Promise<void> {
  const isVerbose = argv.includes('--verbose') || process.env['KVASIR_ARG_VERBOSE'] === '1'
  if (isVerbose) setLogLevel('debug')
  process.stdout.on('error', leaveOnClosedPipe)
  try {
    await dispatch(argv)
  } catch (error) {
    process.exitCode = exitStatus(error)
    if (process.exitCode !== EXIT_INTERRUPTED) process.stderr.write(`${render(error, isVerbose)}\n`)
  }
}

function exitStatus(error: unknown): number {
  if (!(error instanceof KvasirError)) return 1
  if (error.code === 'aborted') return EXIT_INTERRUPTED
  return error.code === 'usage' || error.code === 'attention_invalid' ? 2 : 1
}

async function dispatch(argv: readonly string[]): Promise<void> {
  const [name, rest] = nameOf(argv)
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const [topic] = name === 'help' ? nameOf(rest) : []
    print(topic === undefined ? await mainHelp(COMMANDS) : commandHelp(await find(topic)))
    if (name === undefined) process.exitCode = 2
    return
  }
  if (name === '--version') {
    print(version())
    return
  }
  const command = await find(name)
  const normal = normalise(rest, command.options)
  if (normal.includes('--help=true')) print(commandHelp(command))
  else {
    const root = defineCommand({ meta: { name: 'kvasir' }, subCommands: { [name]: command.citty } })
    await runCommand(root, { rawArgs: [name, ...normal] })
  }
}

/** The command, which may be of two words (`train lckv`), and what comes after it. */
function nameOf(argv: readonly string[]): [name: string | undefined, rest: readonly string[]] {
  const pair = argv.slice(0, 2).join(' ')
  return Object.hasOwn(COMMANDS, pair) ? [pair, argv.slice(2)] : [argv[0], argv.slice(1)]
}

async function find(name: string) {
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (load) return load()
  const pairs = Object.keys(COMMANDS).filter((other) => other.startsWith(`${name} `))
  if (pairs.length > 0) throw usage(`say what to ${name}: ${pairs.map((pair) => `kvasir ${pair}`).join(', ')}`)
  const what = name.startsWith('-') ? `the command must come before ${name}` : `unknown command '${name}'`
  const near = nearest(name, Object.keys(COMMANDS))
  throw usage(`${what}${near === undefined ? '' : `; did you mean '${near}'?`}`)
}

/** What went wrong and what to do about it, a line each; with the stack if asked for. */
function render(error: unknown, isVerbose: boolean): string {
  const isOurs = error instanceof KvasirError
  const remedy = isOurs ? error.remedy : 'This is a bug of Kvasir; --verbose shows where.'
  const lines = [`kvasir: ${isOurs ? error.message.split('\n')[0] : reasonOf(error)}`, `        ${remedy}`]
  if (isVerbose && error instanceof Error)
    lines.push(error.stack ?? '', error.cause instanceof Error ? `cause: ${error.cause.stack}` : '')
  return lines.join('\n').trimEnd()
}

function version(): string {
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** `kvasir … | head`: the reader has enough, which is no error. */
function leaveOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
}
