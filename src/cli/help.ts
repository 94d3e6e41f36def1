/** Help as plain text, and the same for docs/cli.md. */
import type { Command } from './command.ts'
import { type Option, defaultOf, envName, spelling } from './options.ts'

const WIDTH = 110

/** `name  about` in two columns, the second wrapped. */
export function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.min(32, Math.max(...rows.map(([left]) => left.length)))
  return rows.flatMap(([left, right]) => {
    const lines = wrap(right, WIDTH - width - 4)
    const first = left.length > width ? [`  ${left}`] : []
    const head = first.length > 0 ? '' : left
    return [...first, ...lines.map((line, i) => `  ${(i === 0 ? head : '').padEnd(width)}  ${line}`.trimEnd())]
  })
}

export function wrap(text: string, width: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.length - 1
    if (lines[last]!.length + word.length + 1 > width && lines[last] !== '') lines.push(word)
    else lines[last] += (lines[last] === '' ? '' : ' ') + word
  }
  return lines
}

export function optionText(option: Option): string {
  const value = defaultOf(option)
  const isTold = typeof value === 'string' || typeof value === 'number' || Array.isArray(value)
  const shown = !isTold || String(value) === '' ? '' : ` (default ${String(value)})`
  return option.about + shown
}

export async function mainHelp(commands: Readonly<Record<string, () => Promise<Command>>>): Promise<string> {
  const loaded = await Promise.all(Object.values(commands).map((load) => load()))
  return [
    'kvasir: runs language models, as a library, on the command line and as a server',
    '',
    'Usage:',
    '  kvasir COMMAND [options]',
    '',
    'Commands:',
    ...columns(loaded.map((command) => [command.name, command.about])),
    '',
    'kvasir COMMAND --help tells more; kvasir --version prints the version.',
    '',
    'Example:',
    '  kvasir run -p "What is the access code for the calm otter?" -f notes.txt',
  ].join('\n')
}

export function commandHelp(command: Command): string {
  const rows = Object.entries(command.options).map(([name, option]) => [spelling(name, option), optionText(option)] as const)
  return [
    `kvasir ${command.name}: ${command.about}`,
    '',
    'Usage:',
    `  kvasir ${command.name} ${command.arguments === '' ? '' : `[${command.arguments}] `}[options]`,
    '',
    'Options:',
    ...columns(rows),
    '',
    `Options can also be set in the environment: ${envName('model')} for --model. Switches are 1 or 0 there.`,
    '',
    command.examples.length > 1 ? 'Examples:' : 'Example:',
    ...command.examples.map((line) => `  ${line}`),
  ].join('\n')
}
