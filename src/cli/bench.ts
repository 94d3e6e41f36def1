/** `kvasir bench`: speed of reading and writing, also side by side with llama.cpp. Flags are llama-bench's. */
import { z } from 'zod'
import { runBench } from '../bench/bench.ts'
import { benchSchema } from '../bench/bench-options.ts'
import { runProfile } from '../bench/profile.ts'
import { formatProfile } from '../bench/profile-report.ts'
import { REPORT_FORMATS, formatRows } from '../bench/report.ts'
import { parseCount } from '../core/sizes.ts'
import { bundledModel } from '../engine/model.ts'
import { define } from './command.ts'
import { EXIT_INTERRUPTED, onInterrupt } from './interrupt.ts'
import { MODEL_OPTION } from './model-options.ts'
import { type Options, toNumber } from './options.ts'

const { shape } = benchSchema

const BENCH_OPTIONS = {
  'n-prompt': { short: 'p', hint: 'N,…', about: shape.nPrompt.description!, schema: shape.nPrompt },
  'n-gen': { short: 'n', hint: 'N,…', about: shape.nGen.description!, schema: shape.nGen },
  'n-depth': { short: 'd', hint: 'N,…', about: shape.nDepth.description!, schema: shape.nDepth },
  repetitions: { short: 'r', hint: 'N', about: shape.repetitions.description!, convert: toNumber, schema: shape.repetitions },
  'n-parallel': { short: 'npl', hint: 'N,…', about: shape.nParallel.description!, schema: shape.nParallel },
  attention: {
    hint: 'SPEC,…',
    about: shape.attention.description!,
    schema: shape.attention,
  },
  versus: { hint: 'llama.cpp', about: shape.versus.description!, schema: shape.versus },
  'flash-attn': { short: 'fa', hint: 'on|off|both', about: shape.flashAttn.description!, schema: shape.flashAttn },
  profile: { about: shape.profile.description!, schema: shape.profile },
  output: {
    short: 'o',
    hint: REPORT_FORMATS.join('|'),
    about: 'how results are printed',
    schema: z.enum(REPORT_FORMATS).default('md'),
  },
  'batch-size': { short: 'b', hint: 'N', about: shape.nBatch.description!, convert: parseCount, schema: shape.nBatch },
  'ubatch-size': { short: 'ub', hint: 'N', about: shape.nUbatch.description!, convert: parseCount, schema: shape.nUbatch },
  threads: { short: 't', hint: 'N', about: shape.nThreads.description!, convert: toNumber, schema: shape.nThreads },
  'cache-type-k': { short: 'ctk', hint: 'TYPE', about: shape.typeK.description!, schema: shape.typeK },
  'cache-type-v': { short: 'ctv', hint: 'TYPE', about: shape.typeV.description!, schema: shape.typeV },
  repack: { about: "leave weights out of the processor's own layouts", schema: shape.repack },
  warmup: { about: 'no untimed run before each test', schema: shape.warmup },
  seed: { short: 's', hint: 'N', about: shape.seed.description!, convert: toNumber, schema: shape.seed },
} as const satisfies Options

export const bench = define({
  name: 'bench',
  arguments: '',
  about: 'measure speed, also side by side with llama.cpp',
  examples: [
    'kvasir bench -m model.gguf -p 512 -n 128 -d 0,4096 -r 5 --versus llama.cpp',
    'kvasir bench -m model.gguf -d 4096 --attention dense,streaming:sink=4,window=1020',
    'kvasir bench -m model.gguf -npl 1,4,16 -o json',
    'kvasir bench -m model.gguf -p 512 -n 16 --profile --versus llama.cpp',
  ],
  options: { ...MODEL_OPTION, ...BENCH_OPTIONS },
  async run({ model = bundledModel(), output, batchSize, ubatchSize, threads, cacheTypeK, cacheTypeV, ...rest }) {
    using interrupt = onInterrupt()
    const onProgress = (line: string) => {
      if (process.stderr.isTTY) process.stderr.write(`${line}\n`)
    }
    const load = { nBatch: batchSize, nUbatch: ubatchSize, nThreads: threads, typeK: cacheTypeK, typeV: cacheTypeV }
    const input = { model, ...load, ...rest, signal: interrupt.signal, onProgress }
    const text = rest.profile ? formatProfile(await runProfile(input), output) : formatRows(await runBench(input), output)
    process.stdout.write(text)
    if (interrupt.signal.aborted) process.exitCode = EXIT_INTERRUPTED
  },
})
