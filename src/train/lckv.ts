/**
 * Makes a model whose layers read the keys and values of one (LCKV, arXiv 2405.10637, section 3.2; attention/iterations.ts runs it) out
 * of an ordinary model: W_K and W_V of a layer that is read become the means over the layers that read it, those of the others are
 * left out (the authors' convert_pretrained.py), and all weights learn.
 *
 * Ours: `distil` mixes into the targets what a teacher, such as the base, says of the next token; 0, as in the paper, does not.
 * The teacher's weights then lie beside those that learn.
 */
import { KvasirError } from '../core/errors.ts'
import { type LayerSharing, parseLayerTypes, SHARING_DEFAULTS, writeLayerTypes } from '../core/layer-types.ts'
import type { Graph } from '../ggml/graph.ts'
import type { Tensor } from '../ggml/tensor.ts'
import { llama } from '../models/llama.ts'
import { groupsOf } from '../models/stack.ts'
import { fingerprint } from '../weights/fingerprint.ts'
import { type GgufSource, openGguf } from '../weights/gguf.ts'
import { sharingValues } from '../weights/gguf-sharing.ts'
import type { Batch } from './batch.ts'
import { forwardLlama, frozenLlama, trainableLlama } from './trainable-llama.ts'
import type { Objective } from './objective.ts'
import { type Parameters, readFloats } from './parameters.ts'
import { type TrainFiles, trainFile } from './train-file.ts'
import { saveModel } from './save-model.ts'
import { forwardLckv } from './shared-layers.ts'
import type { TrainReport } from './train.ts'

export interface LckvOptions {
  readonly sharing: LayerSharing
  /** How W_K and W_V of a layer that is read begin: as the mean over its readers, or as they are. */
  readonly start: 'mean' | 'copy'
  /** Share of the teacher's probabilities in the targets, 0 … 1. */
  readonly distil: number
  /** An ordinary model of the same tokens; null for the base. */
  readonly teacher?: GgufSource | null
}

/** How layers shall share; what is left out is as the model has it, or else as {@link SHARING_DEFAULTS}. */
export interface SharingOptions {
  /** As `layer_types` of LCKV's configs, e.g. `0_20x20_21`. */
  readonly layers?: string | undefined
  readonly forceNodiag?: boolean | undefined
  readonly forwardPasses?: number | undefined
  readonly backwardPasses?: number | undefined
}

export interface LckvFiles extends TrainFiles, SharingOptions, Omit<LckvOptions, 'sharing' | 'teacher'> {
  /** A GGUF; the base if it is left out. */
  readonly teacher?: string | undefined
}

/** Before the names of the teacher's weights among the parameters. */
const TEACHER = 'teacher/'
const PROJECTIONS = ['attn_k', 'attn_v'] as const

/** How the layers of a model made of the base share. Errors: `layers_unusable`. */
export function sharingFor(base: GgufSource, { layers, ...options }: SharingOptions): LayerSharing {
  const fail = (reason: string): never => {
    throw new KvasirError('layers_unusable', { reason })
  }
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const { nLayer, sharing } = llama.hyperparameters(base).shape
  if (sharing && layers !== undefined) fail('the model shares keys and values already; without --layers it goes on as it is')
  if (sharing) return { ...sharing, ...given }
  if (layers === undefined) return fail(`say with --layers which of the ${nLayer} layers reads which, e.g. ${example(nLayer)}`)
  const reads = parseLayerTypes(layers, nLayer)
  if (typeof reads === 'string') return fail(reads)
  if (reads.every((target, il) => target === il)) fail('each reads itself: there is nothing to share')
  if (groupsOf(reads).length > 1) fail('there is more than one group of condensed layers, and training knows one')
  return { ...SHARING_DEFAULTS, ...given, reads }
}

/** The paper's sandwich of w = 2. */
function example(nLayer: number): string {
  return nLayer < 4 ? `${nLayer - 1}x${nLayer}` : `0_${nLayer - 2}x${nLayer - 2}_${nLayer - 1}`
}

/**
 * Makes an LCKV model of another. Called again after it was stopped, it goes on.
 * Errors: `layers_unusable`, `usage` for a teacher that is none, and {@link trainFile}'s.
 */
export function trainLckv(options: LckvFiles): Promise<TrainReport> {
  const { layers, forceNodiag, forwardPasses, backwardPasses, start, distil, teacher: path, ...files } = options
  return trainFile(files, (base, parameters) => {
    const sharing = sharingFor(base, { layers, forceNodiag, forwardPasses, backwardPasses })
    using teacher = path === undefined ? null : openGguf(path)
    const { reads, ...rest } = sharing
    return {
      objective: lckvObjective(base, parameters, { sharing, start, distil, teacher }),
      identity: {
        ...{ what: 'lckv', layers: writeLayerTypes(reads), ...rest, start, distil },
        teacher: teacher && fingerprint(teacher),
      },
      save: (to) => {
        const metadata = Object.fromEntries(sharingValues(sharing))
        return saveModel(base, { path: to, parameters, metadata, keeps: keepsTensor(sharing) })
      },
    }
  })
}

/** Whether the model made of the base still has this tensor. */
export function keepsTensor({ reads }: LayerSharing): (name: string) => boolean {
  return (name) => {
    const [, il, at] = /^blk\.(\d+)\.(attn_[kv])\./.exec(name) ?? []
    return at === undefined || reads[Number(il)] === Number(il)
  }
}

/** The next token, all tensors of the new model learning. Errors: those of {@link trainableLlama}. */
export function lckvObjective(base: GgufSource, parameters: Parameters, options: LckvOptions): Objective {
  const { sharing, start, distil, teacher: source } = options
  const { shape } = llama.hyperparameters(base)
  const values = new Map(sharingValues(sharing).map(([key, { value }]) => [key, value]))
  const metadata: GgufSource['metadata'] = (key) => values.get(key) ?? base.metadata(key)
  const model = trainableLlama({ ...base, metadata }, parameters, () => true)
  if (start === 'mean' && shape.sharing === undefined) averageReaders(base, parameters, sharing.reads)

  const { nVocab } = shape
  const teacher = distil > 0 ? teacherOf(source ?? base, parameters, nVocab) : null
  const loss = (g: Graph, batch: Batch, targets: Tensor) => g.crossEntropyLoss(forwardLckv(g, model, batch), targets)
  return {
    parameters,
    nVocab,
    loss(g, batch) {
      if (teacher === null) return loss(g, batch, batch.targets)
      const said = g.softMaxExt(forwardLlama(g, teacher, { batch }), null, 1)
      return loss(g, batch, g.add(g.scale(said, distil), g.scale(batch.targets, 1 - distil)))
    },
    measured: (g, batch) => loss(g, batch, batch.targets),
  }
}

function teacherOf(source: GgufSource, parameters: Parameters, nVocab: number): ReturnType<typeof frozenLlama> {
  const fail = (reason: string): never => {
    throw new KvasirError('usage', { reason: `'${source.path}' cannot teach: ${reason}` })
  }
  const teacher = frozenLlama(source, parameters, TEACHER)
  const { shape } = teacher.hp
  if (shape.sharing) fail('its layers share keys and values; give an ordinary model as the teacher')
  if (shape.nVocab !== nVocab) fail(`it has ${shape.nVocab} tokens, and the model has ${nVocab}`)
  return teacher
}

/** W_K and W_V (and their biases) of layers that are read: the means over the layers that read them. */
function averageReaders(base: GgufSource, parameters: Parameters, reads: readonly number[]): void {
  for (const target of new Set(reads)) {
    const readers = reads.flatMap((read, il) => (read === target ? [il] : []))
    for (const at of PROJECTIONS.flatMap((name) => [`${name}.weight`, `${name}.bias`])) {
      const parameter = parameters.get(`blk.${target}.${at}`)
      if (!parameter) continue
      parameter.data.fill(0)
      for (const il of readers) {
        const info = base.tensors.get(`blk.${il}.${at}`)
        if (!info) throw new KvasirError('layers_unusable', { reason: `layer ${target} has a ${at}, and layer ${il} has none` })
        const x = readFloats(base, info)
        for (let i = 0; i < x.length; i++) parameter.data[i]! += x[i]! / readers.length
      }
    }
  }
}
