/** `kvasir inspect`: what a model file holds and what it needs. Reads headers only. */
import { basename } from 'node:path'
import { statSync } from 'node:fs'
import { z } from 'zod'
import { KvasirError } from '../core/errors.ts'
import { type LayerSharing, writeLayerTypes } from '../core/layer-types.ts'
import { type ModelShape, windowOf } from '../core/shape.ts'
import { formatBytes } from '../core/sizes.ts'
import { type MemoryEstimate, estimateMemory, hyperparametersOf } from '../engine/estimate.ts'
import { bundledModel } from '../engine/model.ts'
import { typeName } from '../ggml/types.ts'
import type { Hyperparameters } from '../models/architecture.ts'
import type { Rope } from '../nn/rope.ts'
import { chatTemplateOf } from '../text/chat-encoding.ts'
import { loadTokenizer } from '../text/load.ts'
import { openWeights } from '../weights/open.ts'
import type { WeightSource } from '../weights/source.ts'
import { define } from './command.ts'
import { LOAD_OPTIONS } from './model-options.ts'
import { usage } from './options.ts'

export const inspect = define({
  name: 'inspect',
  arguments: 'MODEL',
  about: 'show what a model file holds and needs',
  examples: ['kvasir inspect model.gguf -c 32k', 'kvasir inspect model.gguf --tensors', 'kvasir inspect folder --json'],
  options: {
    model: LOAD_OPTIONS.model,
    'ctx-size': LOAD_OPTIONS['ctx-size'],
    'ubatch-size': LOAD_OPTIONS['ubatch-size'],
    'cache-type-k': LOAD_OPTIONS['cache-type-k'],
    'cache-type-v': LOAD_OPTIONS['cache-type-v'],
    tensors: { about: 'list every tensor', schema: z.boolean().default(false) },
    json: { about: 'print one JSON object', schema: z.boolean().default(false) },
  },
  async run(values, [path]) {
    if (path !== undefined && values.model !== undefined) throw usage('give the model once: as MODEL or with -m')
    using source = openWeights(path ?? values.model ?? bundledModel())
    const report = examine(source, (hp) =>
      estimateMemory(source, hp, {
        nCtx: values.ctxSize,
        nUbatch: values.ubatchSize,
        typeK: values.cacheTypeK,
        typeV: values.cacheTypeV,
      }),
    )
    const text = values.json ? JSON.stringify(toJson(report, values.tensors)) : toText(report, values.tensors).join('\n')
    process.stdout.write(`${text}\n`)
  },
})

interface Report {
  readonly source: WeightSource
  readonly name: string
  readonly architecture: string
  readonly fileBytes: number
  readonly nParams: number
  readonly types: readonly { readonly type: string; readonly tensors: number; readonly bytes: number }[]
  readonly template: string | null
  /** Null with a reason where we cannot run the model. */
  readonly hyperparameters: Hyperparameters | null
  readonly memory: MemoryEstimate | null
  readonly unsupported: string | null
}

function examine(source: WeightSource, estimate: (hp: Hyperparameters) => MemoryEstimate): Report {
  const types = new Map<string, { type: string; tensors: number; bytes: number }>()
  let nParams = 0
  for (const { type, ne, nBytes } of source.tensors.values()) {
    const entry = types.get(typeName(type)) ?? { type: typeName(type), tensors: 0, bytes: 0 }
    types.set(entry.type, { ...entry, tensors: entry.tensors + 1, bytes: entry.bytes + nBytes })
    nParams += ne.reduce((product, n) => product * n, 1)
  }
  const head = {
    source,
    name: textOf(source, 'general.name') ?? basename(source.path),
    architecture: textOf(source, 'general.architecture') ?? textOf(source, 'model_type') ?? 'unknown',
    fileBytes: source.files.reduce((sum, file) => sum + statSync(file).size, 0),
    nParams,
    types: [...types.values()].toSorted((a, b) => b.bytes - a.bytes),
    template: templateOf(source),
  }
  try {
    const hyperparameters = hyperparametersOf(source)
    return { ...head, hyperparameters, memory: estimate(hyperparameters), unsupported: null }
  } catch (error) {
    if (!(error instanceof KvasirError) || error.code !== 'model_unsupported') throw error
    return { ...head, hyperparameters: null, memory: null, unsupported: String(error.fields['reason']) }
  }
}

function textOf(source: WeightSource, key: string): string | undefined {
  const value = source.metadata(key)
  return typeof value === 'string' ? value : undefined
}

/** The file's own chat template; null where it has none or its tokenizer cannot be read. */
function templateOf(source: WeightSource): string | null {
  try {
    using tokenizer = loadTokenizer(source)
    return chatTemplateOf(source, tokenizer).source
  } catch (error) {
    if (error instanceof KvasirError) return null
    throw error
  }
}

function toText({ source, hyperparameters: hp, memory, ...report }: Report, withTensors: boolean): string[] {
  const row = (name: string, value: string) => `${name.padEnd(14)}${value}`
  const lines = [
    row('name', report.name),
    row('file', `${source.path} (${source.format}, ${formatBytes(report.fileBytes)})`),
    row('parameters', report.nParams.toLocaleString('en')),
    row('architecture', report.architecture + (report.unsupported === null ? '' : `, not supported: ${report.unsupported}`)),
  ]
  if (hp) {
    const { nLayer, nEmbd, nHead, nHeadKv, headDim, nFf, nVocab, nCtxTrain, sharing } = hp.shape
    const groups = nHead === nHeadKv ? '' : `, ${nHeadKv} KV heads`
    lines.push(
      row('shape', `${nLayer} layers, width ${nEmbd}, ${nHead} heads of ${headDim}${groups}, feed-forward ${nFf}`),
      ...(sharing === undefined ? [] : [row('sharing', sharingText(sharing))]),
      row('vocabulary', `${nVocab} tokens, output ${hp.tiedOutput ? 'tied to the embedding' : 'of its own'}`),
      row('context', `trained for ${nCtxTrain} tokens`),
      ...windowText(hp.shape).map((text) => row('windows', text)),
      row('positions', hp.rope ? ropeText(hp.rope) : 'learned'),
      ...(hp.windowRope ? [row('', `of layers with a window: ${ropeText(hp.windowRope)}`)] : []),
    )
  }
  for (const [i, { type, tensors, bytes }] of report.types.entries())
    lines.push(row(i === 0 ? 'weights' : '', `${type.padEnd(8)}${String(tensors).padStart(5)} tensors  ${formatBytes(bytes)}`))
  if (memory) {
    const { nCtx, weightBytes, cacheBytesPerToken, cacheBytes, computeBytes, totalBytes } = memory
    lines.push(
      row('memory', `${formatBytes(totalBytes)} with one sequence of ${nCtx} tokens:`),
      row('', `weights ${formatBytes(weightBytes)}`),
      row('', `cache ${formatBytes(cacheBytes)} when full (${cacheBytesPerToken} bytes per token, taken as tokens arrive)`),
      row('', `compute about ${formatBytes(computeBytes)}`),
    )
  }
  lines.push(row('chat template', report.template === null ? 'none; a plain one is used' : ''))
  if (report.template !== null) lines.push(...report.template.split('\n').map((line) => `  ${line}`))
  if (withTensors)
    lines.push(
      '',
      ...tensorsOf(source).map(({ name, type, shape }) => `${name.padEnd(40)} ${type.padEnd(8)} [${shape.join(', ')}]`),
    )
  return lines
}

function ropeText({ freqBase, nDims, scaling }: Rope): string {
  const by = scaling.type === 'none' ? '' : ` by ${scaling.factor}`
  return `RoPE, base ${freqBase}, ${nDims} dimensions, scaling ${scaling.type}${by}`
}

/** How many layers see how much, where some do not see everything. */
function windowText({ layers, nLayer }: ModelShape): string[] {
  const windows = new Set(layers.map(windowOf).filter(Number.isFinite))
  return [...windows].map((window) => {
    const n = layers.filter((layer) => windowOf(layer) === window).length
    return `${n} of ${nLayer} layers see the last ${window} tokens`
  })
}

function sharingText({ reads, forceNodiag, forwardPasses, backwardPasses }: LayerSharing): string {
  const nOwn = new Set(reads).size
  const nodiag = forceNodiag ? ', no token sees itself' : ''
  return `${nOwn} of ${reads.length} layers keep keys and values (lckv ${writeLayerTypes(reads)}), ${forwardPasses} + ${backwardPasses} passes${nodiag}`
}

function ropeJson({ freqBase, nDims, scaling }: Rope): object {
  return { freq_base: freqBase, n_dims: nDims, scaling: snakeKeys(scaling) }
}

function toJson({ source, hyperparameters: hp, memory, ...report }: Report, withTensors: boolean): object {
  return {
    name: report.name,
    path: source.path,
    format: source.format,
    files: source.files,
    file_bytes: report.fileBytes,
    n_params: report.nParams,
    architecture: report.architecture,
    unsupported: report.unsupported,
    hyperparameters: hp && {
      n_layer: hp.shape.nLayer,
      n_embd: hp.shape.nEmbd,
      n_head: hp.shape.nHead,
      n_head_kv: hp.shape.nHeadKv,
      head_dim: hp.shape.headDim,
      n_ff: hp.shape.nFf,
      n_vocab: hp.shape.nVocab,
      n_ctx_train: hp.shape.nCtxTrain,
      ...(hp.shape.sharing && { sharing: snakeKeys(hp.shape.sharing) }),
      norm_eps: hp.normEps,
      tied_output: hp.tiedOutput,
      windows: hp.shape.layers.map((layer) => (Number.isFinite(windowOf(layer)) ? windowOf(layer) : null)),
      rope: hp.rope && ropeJson(hp.rope),
      ...(hp.windowRope && { window_rope: ropeJson(hp.windowRope) }),
    },
    types: report.types,
    memory: memory && {
      n_ctx: memory.nCtx,
      weight_bytes: memory.weightBytes,
      cache_bytes_per_token: memory.cacheBytesPerToken,
      cache_bytes: memory.cacheBytes,
      compute_bytes: memory.computeBytes,
      total_bytes: memory.totalBytes,
    },
    chat_template: report.template,
    ...(withTensors && { tensors: tensorsOf(source) }),
  }
}

/** `{ nCtxOrig: 1 }` → `{ n_ctx_orig: 1 }`, as every JSON we print is written. */
function snakeKeys(value: object): object {
  const snake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [snake(key), field as unknown]))
}

function tensorsOf(source: WeightSource) {
  return [...source.tensors.values()].map(({ name, type, ne, nBytes }) => {
    const nDims = Math.max(1, ne.findLastIndex((n) => n > 1) + 1)
    return { name, type: typeName(type), shape: ne.slice(0, nDims), bytes: nBytes }
  })
}
