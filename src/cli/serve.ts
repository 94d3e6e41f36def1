/** `kvasir serve`: the OpenAI API and the web page, until Ctrl-C. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { parseCount } from '../core/sizes.ts'
import { type Model, load } from '../engine/model.ts'
import { startServer } from '../server/serve.ts'
import { define } from './command.ts'
import { onInterrupt } from './interrupt.ts'
import { LOAD_OPTIONS, loadOptions } from './model-options.ts'
import { toNumber, usage } from './options.ts'
import { Progress } from './progress.ts'

const WEB_FOLDER = fileURLToPath(new URL('../../dist/web', import.meta.url))

export const serve = define({
  name: 'serve',
  arguments: '',
  about: 'serve the OpenAI API and a web page',
  examples: ['kvasir serve', 'kvasir serve -m model.gguf -c 32k -np 8 --host 0.0.0.0 --port 8081 --api-key SECRET'],
  options: {
    host: { hint: 'HOST', about: 'address to listen on', schema: z.string().min(1).default('127.0.0.1') },
    port: {
      hint: 'PORT',
      about: 'port to listen on; 0 takes a free one',
      convert: toNumber,
      schema: z.int().min(0).max(65535).default(8080),
    },
    'api-key': {
      hint: 'KEY,…',
      about: 'keys of which clients must send one',
      convert: words,
      schema: z.array(z.string()).default([]),
    },
    'cors-origins': {
      hint: 'URL,…',
      about: 'web pages that may use the server from a browser; * is all',
      convert: words,
      schema: z.array(z.string()).default([]),
    },
    parallel: {
      short: 'np',
      hint: 'N',
      about: 'requests that are answered side by side',
      convert: parseCount,
      schema: z.int().min(1).max(256).default(4),
    },
    adapter: {
      hint: 'NAME=PATH,…',
      about: 'adapters and calibrations that requests may name, and only these: lisa:adapter=NAME, chai:file=NAME',
      convert: named,
      schema: z.record(z.string(), z.string()).default({}),
    },
    ...LOAD_OPTIONS,
  },
  async run(values) {
    using progress = new Progress()
    using stop = onInterrupt('SIGTERM')
    let model: Model | undefined
    const { host, port, apiKey, corsOrigins } = values
    const server = await startServer({
      host,
      port,
      apiKeys: apiKey,
      corsOrigins,
      webFolder: WEB_FOLDER,
      signal: stop.signal,
      async load(signal) {
        model = await load(values.model, {
          ...loadOptions(values),
          nParallel: values.parallel,
          adapters: values.adapter,
          onProgress: progress.loading,
          signal,
        })
        return model.engine
      },
    })
    say(`listening on ${server.url}`)
    await server.ready.catch((error: unknown) => {
      if (!stop.signal.aborted) throw error
    })
    progress.clear()
    if (model)
      say(`${model.name}: context of ${model.nCtx} tokens, ${model.engine.nParallel} requests side by side; Ctrl-C stops`)
    await server.closed
  },
})

function words(text: string): string[] {
  return text.split(',').filter(Boolean)
}

function named(text: string): Record<string, string> {
  return Object.fromEntries(
    words(text).map((pair) => {
      const [, name, path] = /^([^=]+)=(.+)$/.exec(pair) ?? []
      if (name === undefined || path === undefined) throw usage(`--adapter ${pair} should be NAME=PATH`)
      if (!existsSync(path)) throw usage(`--adapter ${pair}: there is no file '${path}'`)
      return [name, path]
    }),
  )
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}
