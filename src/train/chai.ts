/**
 * The offline phase of CHAI (arXiv 2403.08058, section 3.2): how many clusters the heads of each layer fall into.
 *
 * Windows of a text go through the model with dense attention. In each window and layer, a KV head is the list of all its
 * probabilities; k-means puts the heads into 1, 2, … G clusters, and what the means leave unexplained is added up: the curve whose
 * elbow is a layer's number of clusters. Only the products of heads with each other are needed for that, G² numbers per window.
 *
 * What that costs is measured too, for not all layers matter alike: the divergence of the model's predictions when one layer is
 * clustered and the others are not (chai-loss.ts). Where the elbow costs more than stated, the layer gets more clusters.
 *
 * The paper chooses the elbow by eye, over 1,024 samples of C4, and looks at no second curve.
 */
import { Attention } from '../attention/attention.ts'
import type { Share } from '../attention/method.ts'
import { kMeans } from '../attention/share/chai/head-clusters.ts'
import { refusesSharing } from '../attention/share/refusals.ts'
import { KvasirError } from '../core/errors.ts'
import { writeWhole } from '../core/write-whole.ts'
import { RunSequence } from '../engine/run-sequence.ts'
import { Runner } from '../engine/runner.ts'
import { F16, F32 } from '../ggml/types.ts'
import { KvCache } from '../kv/cache.ts'
import { loadTokenizer } from '../text/load.ts'
import { openWeights } from '../weights/open.ts'
import { layerLosses } from './chai-loss.ts'
import { chaiPage } from './chai-page.ts'
import type { ChaiReport } from './chai-report.ts'
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
  /** Windows by which it is measured what clusters cost; 0 for none: then elbows alone count. */
  readonly lossSamples: number
  /** What a layer may cost at most: nats of KL(dense ‖ clustered) per token. */
  readonly mostLoss: number
  /** Clusters as a share of the KV heads of all layers, put where they count most, in place of elbows. */
  readonly ratio?: number | undefined
  readonly nThreads: number
  /** 0 … 1 */
  readonly onProgress?: (fraction: number) => void
  readonly signal?: AbortSignal
}

/** Of the time, roughly. */
const PART_OF_INERTIA = 0.2

/** Errors: `usage`, `aborted`, `model_unsupported`, and those of reading models and texts and of writing files. */
export async function calibrateChai(options: CalibrateOptions): Promise<ChaiReport> {
  const { model, file, out, samples, lossSamples, nTokens, seed, mostLoss, ratio, nThreads, signal, onProgress } = options
  using source = openWeights(model)
  using tokenizer = loadTokenizer(source)
  const text = readTrainText(file, tokenizer, { nTokens, heldOut: 0 })
  using runner = await Runner.load(source, { nThreads, cacheTypes: { k: F16, v: F16 }, repack: true, signal })
  const { nCtxTrain, nHeadKv, layers, base } = runner.shape
  if (nTokens > nCtxTrain) {
    throw new KvasirError('usage', { reason: `windows of ${nTokens} tokens, and the model's context has ${nCtxTrain}` })
  }
  const reason = refusesSharing(runner.shape)
  if (reason) throw unsupported(model, reason)
  if (layers.some((layer) => layer.nHeadKv !== nHeadKv)) throw unsupported(model, 'its layers have different numbers of heads')
  if (nHeadKv < 2) throw unsupported(model, 'it has one head of keys, so there is nothing to share')
  const windows = new Windows(text.train, { nTokens, seed, bos: text.bos })
  const window = (i: number) => windows.at(i).subarray(0, nTokens)
  const part = PART_OF_INERTIA
  const inertia = await inertiaOf(runner, {
    ...options,
    window,
    onProgress: (done) => onProgress?.(lossSamples ? part * done : done),
  })
  const losses =
    lossSamples === 0
      ? null
      : await layerLosses(runner, {
          windows: Array.from({ length: lossSamples }, (_, i) => window(samples + i)),
          ...{ signal, onProgress: (done) => onProgress?.(part + (1 - part) * done) },
        })
  const clusters =
    ratio === undefined
      ? inertia.map((curve, il) => clustersOf(curve, losses?.[il], mostLoss))
      : clustersWithin(losses ?? inertia, ratio)
  const report: ChaiReport = {
    kind: 'chai',
    version: 1,
    base: base!.fingerprint,
    model: source.path.split(/[\\/]/).at(-1)!,
    nHeadKv,
    clusters,
    ratio: clusters.reduce((a, b) => a + b) / (nHeadKv * clusters.length),
    elbows: inertia.map(elbowOf),
    inertia,
    losses,
    rule: ruleOf(options),
    ...{ samples, lossSamples, nTokens, seed, text: text.hash },
  }
  await writeWhole(`${out.replace(/\.json$/, '')}.html`, chaiPage(report))
  await writeWhole(out, `${JSON.stringify(report, null, 1)}\n`)
  return report
}

function ruleOf({ ratio, lossSamples, mostLoss }: CalibrateOptions): string {
  if (ratio !== undefined) return `${ratio} of the heads of all layers, where they count most`
  return lossSamples === 0 ? 'the elbow' : `the elbow, and more where it costs more than ${mostLoss} nats per token`
}

function unsupported(path: string, reason: string): KvasirError {
  return new KvasirError('model_unsupported', { path, reason })
}

interface Measured extends Pick<CalibrateOptions, 'samples' | 'nTokens' | 'onProgress' | 'signal'> {
  readonly window: (i: number) => Int32Array
}

/** What k-means leaves unexplained, for each layer. */
async function inertiaOf(runner: Runner, { samples, nTokens, window, onProgress, signal }: Measured): Promise<ErrorCurve[]> {
  const { nLayer, nHeadKv: G } = runner.shape
  const attention = new Attention('calibration', runner.shape, { share: watching(G) })
  const errors = Array.from({ length: nLayer }, () => new Float64Array(G))
  const squares = new Float64Array(nLayer)
  using sequence = new RunSequence(attention, new KvCache(attention.layout({ k: F16, v: F16 }), nTokens))
  const { cache } = sequence
  for (let i = 0; i < samples; i++) {
    if (signal?.aborted) throw new KvasirError('aborted')
    sequence.truncate(0) // the graph serves again
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

/** Dense attention that leaves the products of its KV heads' probabilities in a store of the layer: `gram` f32[G, G]. */
function watching(G: number): Share {
  return {
    stores: (_, own) => ({ ...own, gram: { width: G, nHead: 1, type: F32, order: 'rows', fixed: G } }),
    wantsProbs: () => true,
    record: (chunk, _, base) => (layer, projected) => {
      const { g } = chunk
      const { o, p } = base.attend(layer, projected)
      const [m, rows] = p!.values.ne
      const each = g.reshape(p!.values, m * rows, G) // a KV head's query heads one after another
      g.expand(g.cpy(g.mulMat(each, each), g.reshape(chunk.layer(layer.il).stores['gram']!.tensor, G, G)))
      return o
    },
  }
}
