/**
 * Trains LiSA adapters (attention/share/lisa/lisa.ts runs them, and says what of it is ours): for a frozen model, the layers' networks over
 * heads and their queries and keys of low rank.
 *
 * First every replaced layer by itself, on the hidden states of the base: the divergence of its probabilities from the base's,
 * and the squared difference of its output, relative to the base's. Scores go from layer to layer as they will. Then end to end:
 * the divergence of the next token's probabilities from the base's. Held-out text is measured by the latter in both.
 *
 * Shapes: d = headDim, H = nHead, G = nHeadKv, r = rank, T = tokens of a sequence, B = sequences.
 */
import type { AttentionLayer } from '../attention/method.ts'
import { lisaMetadata, lisaName, lisaShapes, type LisaTensor, lisaTensors } from '../attention/share/lisa/adapter-file.ts'
import { lowRank } from '../attention/share/lisa/lisa.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { F16, F32 } from '../ggml/types.ts'
import { embed } from '../models/decoder.ts'
import { llama } from '../models/llama.ts'
import { linear } from '../nn/linear.ts'
import { convertRows } from '../weights/convert.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import { type GgufSource, openGguf } from '../weights/gguf.ts'
import { GgufWriter } from '../weights/gguf-writer.ts'
import { rotatedHeads, valuesByHead, weigh } from './trainable-attention.ts'
import type { Batch } from './batch.ts'
import { type LisaChoice, type LisaPlan, lisaPlan, lisaStart } from './lisa-start.ts'
import { frozenLlama, logitsOf, runLayer, type TrainableLlama } from './trainable-llama.ts'
import type { Objective } from './objective.ts'
import type { Parameters } from './parameters.ts'
import { type TrainFiles, trainFile } from './train-file.ts'
import type { TrainReport } from './train.ts'

export interface LisaFiles extends TrainFiles, Omit<LisaChoice, 'seed'> {
  /** Steps layer by layer, before {@link TrainOptions.steps} end to end. */
  readonly firstSteps: number
}

/**
 * Trains an adapter. Called again after it was stopped, it goes on. With 0 steps of both kinds it writes what an adapter begins
 * as, without a text and for any type of weights. Errors: `layers_unusable`, and {@link trainFile}'s.
 */
export function trainLisa({ layers, rank, hidden, firstSteps, ...files }: LisaFiles): Promise<TrainReport> {
  return trainFile(files, (base, parameters) => {
    const plan = lisaPlan(base, { layers, rank, hidden, seed: files.seed })
    const { first, last } = lisaObjectives(lisaParts(base, parameters, { plan }))
    return {
      objective: last,
      first: { objective: first, steps: firstSteps },
      identity: { what: 'lisa', ...plan, layers: plan.layers.join('_'), firstSteps },
      save: (path) => saveLisa(base, { path, plan, values: (name) => parameters.get(name)!.data }),
    }
  })
}

/** Writes what an adapter of a model begins as. Errors: `layers_unusable`, `usage`, `file_error`, and those of reading models. */
export async function writeLisaStart({ model, out, ...choice }: LisaChoice & { model: string; out: string }): Promise<void> {
  using base = openGguf(model)
  const plan = lisaPlan(base, choice)
  const start = new Map(
    plan.layers.flatMap((il) =>
      Object.entries(lisaStart(base, il, plan)).map(([name, x]) => [lisaName(il, name as LisaTensor), x]),
    ),
  )
  await saveLisa(base, { path: out, plan, values: (name) => start.get(name)! })
}

interface Saved {
  readonly path: string
  readonly plan: LisaPlan
  readonly values: (name: string) => Float32Array
}

/** Projections become f16. */
export async function saveLisa(base: GgufSource, { path, plan, values }: Saved): Promise<void> {
  const shapes = lisaShapes(llama.hyperparameters(base).shape, plan)
  const tensors = plan.layers.flatMap((il) =>
    lisaTensors(plan).map((tensor) => ({
      ...{ name: lisaName(il, tensor), ne: shapes[tensor] },
      type: tensor === 'q' || tensor === 'k' ? F16 : F32,
    })),
  )
  await using writer = await GgufWriter.create(path, { metadata: lisaMetadata(fingerprint(base), plan, plan.layers), tensors })
  for (const { name, type, ne } of tensors) {
    const { buffer, byteOffset, byteLength } = values(name)
    const floats = new Uint8Array(buffer, byteOffset, byteLength)
    await writer.write(convertRows(floats, { from: F32, to: type, rowLength: ne[0]!, nRows: ne[1] ?? 1 }))
  }
  await writer.finish()
}

export interface LisaObjectives {
  /** Layer by layer. */
  readonly first: Objective
  /** End to end. */
  readonly last: Objective
}

interface PartsOptions {
  readonly plan: LisaPlan
  /** False for tensors that stay as they begin. */
  readonly learns?: (tensor: LisaTensor) => boolean
}

/** The base, frozen, and the tensors of an adapter as it begins. Errors: those of {@link frozenLlama}. */
export function lisaParts(base: GgufSource, parameters: Parameters, { plan, learns = () => true }: PartsOptions): Lisa {
  const model = frozenLlama(base, parameters, '')
  const shapes = lisaShapes(model.hp.shape, plan)
  for (const il of plan.layers) {
    const start = lisaStart(base, il, plan)
    for (const tensor of lisaTensors(plan)) {
      const isTrained = tensor !== 'period' && learns(tensor)
      parameters.add(lisaName(il, tensor), shapes[tensor], isTrained).data.set(start[tensor])
    }
  }
  return { ...model, plan, parameters }
}

export function lisaObjectives(lisa: Lisa): LisaObjectives {
  const { parameters } = lisa
  const common = { parameters, nVocab: lisa.hp.shape.nVocab }
  const last = (g: Graph, batch: Batch) => endToEnd(g, lisa, batch)
  const first = (g: Graph, batch: Batch) => layerByLayer(g, lisa, batch)
  return { first: { ...common, loss: first, measured: last }, last: { ...common, loss: last } }
}

export interface Lisa extends Pick<TrainableLlama, 'hp' | 'weights'> {
  readonly plan: LisaPlan
  /** Those of the adapter among them. */
  readonly parameters: Parameters
}

/** What a layer made of its input. */
interface Attended {
  /** f32[nEmbd, T · B], normed. */
  readonly x: Tensor
  /** Scaled, before the mask, and the probabilities: f32[T, T, H · B]. */
  readonly scores: Tensor
  readonly p: Tensor
  /** f32[nEmbd, T · B] */
  readonly o: Tensor
}

type AttendAll = (layer: AttentionLayer, x: Tensor, before: Tensor | null) => Attended

/** The layers as they are. */
function ordinary(g: Graph, batch: Batch): AttendAll {
  return (layer, x) => {
    const scores = g.scale(products(g, layer, { x, batch }), layer.scale)
    return { x, scores, ...outputs(g, layer, { x, scores, batch }) }
  }
}

/** The layers with those replaced that are. */
function replaced(g: Graph, { hp, plan, parameters }: Lisa, batch: Batch): AttendAll {
  const { nHead } = hp.shape
  const { nTokens: T, nSequences: B } = batch
  const { rank, hidden } = plan
  const own = ordinary(g, batch)
  return (layer, x, before) => {
    if (!plan.layers.includes(layer.il)) return own(layer, x, before)
    const of = (tensor: LisaTensor) => parameters.get(lisaName(layer.il, tensor))!.tensor
    const low = lowRank(layer, { q: of('q'), k: of('k'), ropeFactors: of('period') }, rank)
    const split = g.reshape(before!, T, T, nHead, B)
    const s = g.reshape(g.cont(g.permute(split, 1, 2, 0, 3)), nHead, T * T * B)
    const aligned = g.mulMat(of('align'), s)
    const mixed = hidden > 0 ? g.add(g.mulMat(of('outer'), g.silu(g.mulMat(of('inner'), s))), aligned) : aligned
    const back = g.cont(g.permute(g.reshape(mixed, nHead, T, T, B), 2, 0, 1, 3))
    const scores = g.add(products(g, low, { x, batch }), g.reshape(back, T, T, nHead * B))
    return { x, scores, ...outputs(g, layer, { x, scores, batch }) }
  }
}

interface Input {
  readonly x: Tensor
  readonly batch: Batch
}

/** Of queries and keys: f32[T, T, H · B]. */
function products(g: Graph, layer: AttentionLayer, input: Input): Tensor {
  return g.mulMat(rotatedHeads(g, layer, 'k', input), rotatedHeads(g, layer, 'q', input))
}

function outputs(
  g: Graph,
  layer: AttentionLayer,
  { scores, batch, x }: Input & { readonly scores: Tensor },
): Pick<Attended, 'p' | 'o'> {
  const p = g.softMaxExt(scores, batch.mask, 1)
  return { p, o: linear(g, layer.output, weigh(g, { v: valuesByHead(g, layer, { x, batch }), p }, batch)) }
}

interface Way {
  readonly from: number
  readonly to: number
  readonly x: Tensor
  readonly before: Tensor | null
  readonly attend: AttendAll
}

/** Layers from … to - 1, and what each attended to. */
function through(g: Graph, { weights }: Lisa, { from, to, x, before, attend }: Way): { x: Tensor; attended: Attended[] } {
  const attended: Attended[] = []
  let now = x
  for (const layer of weights.layers.slice(from, to)) {
    const remember = (of: AttentionLayer, normed: Tensor) => {
      const made = attend(of, normed, attended.at(-1)?.scores ?? before)
      attended.push(made)
      return made.o
    }
    now = runLayer(g, layer, { x: now, attend: remember })
  }
  return { x: now, attended }
}

/** Logits f32[nVocab, T · B], with the layers replaced and as they are; before the first one replaced both are the same. */
export function lisaLogits(g: Graph, lisa: Lisa, batch: Batch): { readonly ours: Tensor; readonly base: Tensor } {
  const { plan, hp, weights } = lisa
  const [from, to] = [Math.min(...plan.layers, hp.shape.nLayer), hp.shape.nLayer]
  const attend = ordinary(g, batch)
  const start = through(g, lisa, { from: 0, to: from, x: embed(g, weights, batch), before: null, attend })
  const way = { from, to, x: start.x, before: start.attended.at(-1)?.scores ?? null }
  const logits = (how: AttendAll) => logitsOf(g, weights, through(g, lisa, { ...way, attend: how }).x)
  return { ours: logits(replaced(g, lisa, batch)), base: logits(attend) }
}

function endToEnd(g: Graph, lisa: Lisa, batch: Batch): Tensor {
  const { ours, base } = lisaLogits(g, lisa, batch)
  return divergence(g, ours, base)
}

/** Every replaced layer on the base's hidden states. */
function layerByLayer(g: Graph, lisa: Lisa, batch: Batch): Tensor {
  const { plan, weights } = lisa
  const { nTokens: T } = batch
  const visible = g.input(F32, [T, T], (data) => {
    for (let i = 0; i < data.length; i++) data[i] = i % T <= Math.floor(i / T) ? 0 : HIDDEN
  })
  const teacher = through(g, lisa, {
    ...{ from: 0, to: Math.max(...plan.layers) + 1, x: embed(g, weights, batch), before: null },
    attend: ordinary(g, batch),
  }).attended
  const attend = replaced(g, lisa, batch)
  const ours: Attended[] = []
  let loss: Tensor | null = null
  for (const [il, base] of teacher.entries()) {
    if (!plan.layers.includes(il)) {
      ours.push(base)
      continue
    }
    const made = attend(weights.layers[il]!.attention, base.x, ours[il - 1]!.scores)
    ours.push(made)
    const scores = divergence(g, g.add(made.scores, visible), g.add(base.scores, visible))
    const error = g.div(g.sum(g.sqr(g.sub(made.o, base.o))), g.sum(g.sqr(base.o)))
    const both = g.add(scores, error)
    loss = loss ? g.add(loss, both) : both
  }
  return g.scale(loss!, 1 / plan.layers.length)
}

/** Where softmax gives 0, and logarithms stay finite. */
const HIDDEN = -1e9

/** KL of softmax(logits) from softmax(base), the mean over columns: f32[1]; no gradient goes to the base. */
function divergence(g: Graph, logits: Tensor, base: Tensor): Tensor {
  const targets = g.softMaxExt(base, null, 1)
  return g.sub(g.crossEntropyLoss(logits, targets), g.crossEntropyLoss(base, targets))
}
