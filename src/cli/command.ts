/** A command: what help says of it, its options, and what it does. The command line runs it through citty. */
import { type CommandDef, defineCommand } from 'citty'
import { z } from 'zod'
import { type Options, type Values, cittyArgs, usage, valuesOf } from './options.ts'

export interface Command {
  readonly name: string
  /** Names of positional arguments, e.g. `MODEL`; they may be left out. */
  readonly arguments: string
  readonly about: string
  readonly examples: readonly string[]
  readonly options: Options
  readonly citty: CommandDef
}

interface Definition<O extends Options> extends Omit<Command, 'options' | 'citty'> {
  readonly options: O
  run(values: Values<O>, positional: readonly string[]): Promise<void>
}

/** Options that every command has. */
export const COMMON_OPTIONS = {
  verbose: { about: 'log what ggml says, and show stacks of errors', schema: z.boolean().default(false) },
  help: { short: 'h', about: 'show this help', schema: z.boolean().default(false) },
} as const satisfies Options

export function define<const O extends Options>(definition: Definition<O>): Command {
  const options = { ...definition.options, ...COMMON_OPTIONS }
  const nPositional = definition.arguments.split(' ').filter(Boolean).length
  const citty = defineCommand({
    meta: { name: definition.name, description: definition.about },
    args: cittyArgs(options),
    run: ({ args }) => {
      if (args._.length > nPositional) throw usage(`unexpected argument '${args._[nPositional]}'`)
      return definition.run(valuesOf(definition.options, args), args._)
    },
  })
  return { ...definition, options, citty: citty as CommandDef }
}
