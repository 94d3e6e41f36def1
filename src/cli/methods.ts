/** `kvasir methods`: what attention can be, with options, costs and what goes together. */
import { z } from 'zod'
import { AXIS_QUESTIONS, COST_LETTERS, type MethodInfo, methodInfos } from '../attention/catalogue.ts'
import { AXES } from '../attention/method.ts'
import { allowedText } from '../attention/method-options.ts'
import { DENSE, methodOf } from '../attention/spec.ts'
import { define } from './command.ts'
import { columns, wrap } from './help.ts'

const DENSE_SUMMARY = 'Every row stays and every query reads all rows before it: the name for no method.'

export const methods = define({
  name: 'methods',
  arguments: 'NAME',
  about: 'list the methods of attention, or tell all about one',
  examples: ['kvasir methods', 'kvasir methods streaming', 'kvasir methods --json'],
  options: { json: { about: 'print JSON: an array of methods, or the one', schema: z.boolean().default(false) } },
  async run({ json }, [name]) {
    const infos = methodInfos()
    if (name === DENSE && !json) return print([`${DENSE}: ${DENSE_SUMMARY}`])
    const one = name === undefined || name === DENSE ? undefined : infos.find((info) => info.name === methodOf(name).name)
    const asked = name === DENSE ? { name: DENSE, summary: DENSE_SUMMARY } : (one ?? infos)
    print(json ? [JSON.stringify(asked, null, 2)] : one === undefined ? listText(infos) : methodText(one))
  },
})

function listText(infos: readonly MethodInfo[]): string[] {
  const axes = AXES.map((axis) => ({ axis, found: infos.filter((info) => info.axis === axis) })).filter(
    ({ found }) => found.length > 0,
  )
  return [
    'A setting takes at most one method of each axis; none at all is dense.',
    '',
    ...columns([[DENSE, DENSE_SUMMARY]]),
    ...axes.flatMap(({ axis, found }) => [
      '',
      `${axis}: ${AXIS_QUESTIONS[axis]}`,
      ...columns(found.map((info) => [info.name, info.summary])),
    ]),
    '',
    'kvasir methods NAME tells its options. Written NAME:option=value,option=value; + joins methods of different axes.',
  ]
}

function methodText(info: MethodInfo): string[] {
  const options = Object.entries(info.options.properties).map(([name, schema]): [string, string] => [
    name,
    `${schema.description ?? ''}; ${allowedText(schema)}${Object.hasOwn(info.defaults, name) ? `, default ${String(info.defaults[name])}` : ''}`,
  ])
  const conflicts = Object.entries(info.conflicts).map(([name, why]): [string, string] => [name, why])
  return [
    ...wrap(`${info.name}: ${info.summary}`, 100),
    '',
    ...columns([
      ['axis', `${info.axis}: ${AXIS_QUESTIONS[info.axis]}`],
      ['source', info.source],
      ['cost', `${info.cost}; ${COST_LETTERS}`],
      ...(info.needs === undefined ? [] : [['needs', info.needs] as [string, string]]),
      ['with', info.composes_with.join(', ') || 'no other method'],
    ]),
    ...(conflicts.length > 0 ? ['', 'Not with:', ...columns(conflicts)] : []),
    ...(options.length > 0 ? ['', 'Options:', ...columns(options)] : []),
    '',
    'Example:',
    `  --attention ${info.example}`,
  ]
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`)
}
