/**
 * What other programs cost a run: prints markdown. `npx tsx scripts/fair-share.ts [MODEL.gguf] [rounds]` (default: the bundled
 * model, 5). Tokens per second of `kvasir run` alone, beside one and two busy loops, beside another run (of both the slower), and
 * with twice as many threads as processors; medians of the rounds, in which the cases take turns. Each begins when the machine is
 * quiet.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { median } from '../src/bench/statistics.ts'
import { allowedProcessors, busySeconds } from '../src/core/processors.ts'

const KVASIR = fileURLToPath(new URL('../bin/kvasir.js', import.meta.url))
/** A minute, so that none outlives us for long. */
const BUSY_LOOP = 'for (const end = Date.now() + 60_000; Date.now() < end;);'
const PROMPT = 'The river was wide and nobody could see the other side. '.repeat(36)

const [, , model, rounds = '5'] = process.argv
const processors = allowedProcessors()

interface Speed {
  readonly read: number
  readonly written: number
}

async function run(...options: string[]): Promise<Speed> {
  const args = [KVASIR, 'run', '-p', PROMPT, '-n', '600', '--ignore-eos', '--temp', '0', '--json', ...options]
  if (model !== undefined) args.push('-m', model)
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const { timings } = JSON.parse(await text(child.stdout))
  return { read: timings.prompt_per_second, written: timings.predicted_per_second }
}

async function beside(nLoops: number): Promise<Speed> {
  const loops = Array.from({ length: nLoops }, () => spawn(process.execPath, ['-e', BUSY_LOOP], { stdio: 'ignore' }))
  try {
    await setTimeout(500)
    return await run()
  } finally {
    await Promise.all(loops.map(ended))
  }
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
}

async function two(): Promise<Speed> {
  const both = await Promise.all([run(), run()])
  return { read: Math.min(...both.map(({ read }) => read)), written: Math.min(...both.map(({ written }) => written)) }
}

/** Waits until the processors do next to nothing for half a second. */
async function quiet(): Promise<void> {
  for (let before = busySeconds(processors), now; ; before = now) {
    await setTimeout(500)
    now = busySeconds(processors)
    if (now - before < 0.05) return
  }
}

const cases: [string, () => Promise<Speed>][] = [
  ['alone', () => run()],
  ['beside a busy loop', () => beside(1)],
  ['beside two busy loops', () => beside(2)],
  ['beside another run', two],
  [`-t ${2 * processors.length}`, () => run('-t', `${2 * processors.length}`)],
  ['-t 1', () => run('-t', '1')],
]
const speeds = cases.map((): Speed[] => [])
for (let round = 0; round < Number(rounds); round++) {
  for (const [i, [name, measure]] of cases.entries()) {
    await quiet()
    const speed = await measure()
    speeds[i]!.push(speed)
    console.error(`${round + 1}: ${name}: ${speed.read.toFixed(1)} ${speed.written.toFixed(1)}`)
  }
}

const medians = speeds.map((all) => ({ read: median(all.map((x) => x.read)), written: median(all.map((x) => x.written)) }))
const cell = (value: number, alone: number) => `${value.toFixed(0)} | ${(value / alone).toFixed(2)}`
console.log(`| ${processors.length} processors | tokens/s read | of alone | tokens/s written | of alone |`)
console.log('| --- | --: | --: | --: | --: |')
for (const [i, [name]] of cases.entries()) {
  const [{ read, written }, alone] = [medians[i]!, medians[0]!]
  console.log(`| ${name} | ${cell(read, alone.read)} | ${cell(written, alone.written)} |`)
}
