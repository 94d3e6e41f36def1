/**
 * The offline phase of CHAI (arXiv 2403.08058, section 3.2): how many clusters the heads of each layer fall into.
 *
 * Windows of a text go through the model with dense attention. In each window and layer, a KV head is the list of all its
 * probabilities; k-means puts the heads into 1, 2, … G clusters, and what the means leave unexplained is added up. Only the
 * products of heads with each other are needed for that, so a layer gives G² numbers per window. The number of clusters is the
 * elbow of the curve, and more where that would leave more than a stated share (elbow.ts).
 *
 * The paper chooses the elbow by eye, over 1,024 samples of C4.
 */
import { Attention } from '../attention/attention.ts'
import type { ChaiCalibration } from '../attention/chai-calibration.ts'
import { kMeans } from '../attention/head-clusters.ts'
import type { Share } from '../attention/method.ts'
import { KvasirError } from '../core/errors.ts'
import { writeWhole } from '../core/write-whole.ts'
import { Runner } from '../engine/runner.ts'
import { F16, F32 } from '../ggml/types.ts'
import { SequenceCache } from '../kv/cache.ts'
import { loadTokenizer } from '../text/load.ts'
import { openWeights } from '../weights/open.ts'
import { chaiPage } from './chai-page.ts'
import { clustersOf, clustersWithin, elbowOf, type ErrorCurve } from './elbow.ts'
import { readTrainText } from './text.ts'
import { Windows } from './windows.ts'

export interface CalibrateOptions {
  readonly model: string
  /** Text, perhaps gzipped. */
  readonly file: string
  /** The .json to write; a page with the curves goes beside it, as .html. */
  readonly out: string
  /** Windows of text, and tokens of each. */
  readonly samples: number
  readonly nTokens: number
  readonly seed: number
  /** What a layer's clusters may leave unexplained at most, as a share of the sum of squared probabilities. */
  readonly mostError: number
  /** Clusters as a share of the KV heads of all layers, put where they count most, in place of elbows. */
  readonly ratio?: number | undefined
  readonly nThreads: number
  /** 0 … 1 */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal
}

/** What the file holds. */
export interface ChaiReport extends ChaiCalibration {
  readonly model: string
  readonly nHeadKv: number
  /** Clusters per KV head, over all layers. */
  readonly ratio: number
  readonly elbows: readonly number[]
  /** Error with 1 … G clusters, per layer, as a share of the sum of squared probabilities. */
  readonly errors: readonly ErrorCurve[]
  readonly rule: string
  readonly samples: number
  readonly nTokens: number
  readonly seed: number
  readonly text: string
}

/** Errors: `usage`, `aborted`, `model_unsupported`, and those of reading models and texts and of writing files. */
export async function calibrateChai(options: CalibrateOptions): Promise<ChaiReport> {
  const { model, file, out, samples, nTokens, seed, mostError, ratio, nThreads, signal } = options
  using source = openWeights(model)
  using tokenizer = loadTokenizer(source)
  const text = readTrainText(file, tokenizer, { nTokens, heldOut: 0 })
  using runner = await Runner.load(source, { nThreads, cacheTypes: { k: F16, v: F16 }, repack: true, signal })
  const { nCtxTrain, nHeadKv, sharing, base } = runner.shape
  if (nTokens > nCtxTrain) {
    throw new KvasirError('usage', { reason: `windows of ${nTokens} tokens, and the model's context has ${nCtxTrain}` })
  }
  if (sharing) throw unsupported(model, 'its layers share keys, and CHAI would share them in each')
  if (nHeadKv < 2) throw unsupported(model, 'it has one head of keys, so there is nothing to share')
  const windows = new Windows(text.train, { nTokens, seed, bos: text.bos })
  const curves = await measure(runner, options, (i) => windows.at(i).subarray(0, nTokens))
  const clusters = ratio === undefined ? curves.map((curve) => clustersOf(curve, mostError)) : clustersWithin(curves, ratio)
  const report: ChaiReport = {
    kind: 'chai',
    version: 1,
    base: base!.fingerprint,
    model: source.path.split(/[\\/]/).at(-1)!,
    nHeadKv,
    clusters,
    ratio: clusters.reduce((a, b) => a + b) / (nHeadKv * clusters.length),
    elbows: curves.map(elbowOf),
    errors: curves,
    rule: ratio === undefined ? `elbow, and an error of ${mostError} at most` : `${ratio} of the heads, where they count most`,
    ...{ samples, nTokens, seed, text: text.hash },
  }
  await writeWhole(`${out.replace(/\.json$/, '')}.html`, chaiPage(report))
  await writeWhole(out, `${JSON.stringify(report, null, 1)}\n`)
  return report
}

function unsupported(path: string, reason: string): KvasirError {
  return new KvasirError('model_unsupported', { path, reason })
}

/** The error curve of each layer. */
async function measure(
  runner: Runner,
  { samples, nTokens, onProgress, signal }: CalibrateOptions,
  window: (i: number) => Int32Array,
): Promise<ErrorCurve[]> {
  const { nLayer, nHeadKv: G } = runner.shape
  const attention = new Attention('calibration', { share: heads(G) })
  const layout = attention.layout(runner.shape, { k: F16, v: F16 })
  const errors = Array.from({ length: nLayer }, () => new Float64Array(G))
  const squares = new Float64Array(nLayer)
  using cache = new SequenceCache(layout, nTokens)
  for (let i = 0; i < samples; i++) {
    if (signal?.aborted) throw new KvasirError('aborted')
    cache.truncate(0) // the graph serves again
    const sequence = { cache, attention, [Symbol.dispose]: () => {} }
    await runner.run([{ sequence, tokens: window(i), logits: 'none' }])
    for (const [il, { stores }] of cache.layers.entries()) {
      const gram = { n: G, values: Float64Array.from(stores['gram']!.data() as Float32Array) }
      for (let head = 0; head < G; head++) squares[il]! += gram.values[head * (G + 1)]!
      for (const [c, { inertia }] of kMeans(gram, G).entries()) errors[il]![c]! += inertia
    }
    onProgress?.((i + 1) / samples)
  }
  return errors.map((curve, il) => Array.from(curve, (error) => Number((error / squares[il]!).toPrecision(6))))
}

/** Dense attention that leaves the products of its heads' probabilities in a store `gram`, f32[G, G]. */
function heads(G: number): Share {
  return {
    stores: (_, own) => ({ ...own, gram: { width: G, nHead: 1, type: F32, order: 'rows', fixed: G } }),
    needsProbabilities: () => true,
    start:
      ({ g }, { cache }, own) =>
      (layer, projected) => {
        const { o, p } = own.attend(layer, projected)
        const [m, rows] = p!.values.ne
        const each = g.reshape(p!.values, m * rows, G) // a KV head's query heads one after another
        g.expand(g.cpy(g.mulMat(each, each), g.reshape(cache.layers[layer.il]!.stores['gram']!.tensor, G, G)))
        return o
      },
  }
}
