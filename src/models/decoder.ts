/**
 * A decoder-only model, as they all are: embedding, layers of attention and feed-forward on a residual stream, logits. What
 * architectures do otherwise is in the parts that may be null; see decoder-spec.ts for how one is described.
 */
import type { AttentionLayer } from '../attention/method.ts'
import type { Step } from '../attention/step.ts'
import type { Graph } from '../ggml/graph.ts'
import type { RopeParams } from '../ggml/ops.ts'
import type { Tensor } from '../ggml/tensor.ts'
import type { LayerShape } from '../core/shape.ts'
import { type Linear, linear, linearBlocks } from '../nn/linear.ts'
import { type Mlp, mlp } from '../nn/mlp.ts'
import { norm, type Norm } from '../nn/norm.ts'
import type { ForwardInputs, Model } from './architecture.ts'
import { throughLayers } from './stack.ts'

/** The weights of a layer's attention. */
export interface AttentionWeights extends Pick<AttentionLayer, 'sinks' | 'output'> {
  readonly q: Linear
  /** Null in a layer that reads another's keys and values. */
  readonly k: Linear | null
  readonly v: Linear | null
  /** Of each head, before rotation: [dK]. */
  readonly qNorm: Norm | null
  readonly kNorm: Norm | null
  /** Null where positions are learned. */
  readonly rope: RopeParams | null
  /** f32[nDims / 2], or null. */
  readonly ropeFactors: Tensor | null
}

export interface DecoderLayer {
  readonly attention: AttentionLayer
  readonly attentionNorm: Norm
  /** Of what attention and feed-forward add, before it is added. */
  readonly attentionPostNorm: Norm | null
  readonly mlp: Mlp
  readonly mlpNorm: Norm
  readonly mlpPostNorm: Norm | null
}

export interface Decoder {
  readonly tokenEmbedding: Tensor
  /** What embeddings are multiplied by. */
  readonly embeddingScale: number
  /** [nEmbd, positions], or null where positions are rotations. */
  readonly positionEmbedding: Tensor | null
  readonly layers: readonly DecoderLayer[]
  readonly outputNorm: Norm
  readonly output: Tensor
  /** Logits become softcap · tanh(logit / softcap); null for none. */
  readonly softcap: number | null
}

/** The attention of a layer from its weights. */
export function decoderAttention(shape: LayerShape, weights: AttentionWeights): AttentionLayer {
  const { sinks, output, qNorm, kNorm, rope, ropeFactors } = weights
  return {
    ...shape,
    sinks,
    output,
    project(g, x, which, heads) {
      const size = which === 'v' ? shape.dV : shape.dK
      const matrix = weights[which]
      if (matrix === null) throw new Error(`layer ${shape.il} has no ${which} of its own`)
      const y = heads ? linearBlocks(g, matrix, x, { blocks: heads, size }) : headsOf(g, linear(g, matrix, x), size)
      const ofHead = which === 'q' ? qNorm : which === 'k' ? kNorm : null
      return ofHead ? norm(g, ofHead, y) : y
    },
    rotate: (g, x, positions) => (rope ? g.ropeExt(x, positions, ropeFactors, rope) : x),
  }
}

function headsOf(g: Graph, y: Tensor, size: number): Tensor {
  return g.reshape(y, size, y.ne[0] / size, y.ne[1])
}

export function decoderModel(decoder: Decoder): Model {
  return { layers: decoder.layers, forward: (step, inputs) => forward(decoder, step, inputs) }
}

/** Logits f32[nVocab, nOut]. */
function forward(decoder: Decoder, step: Step, { tokens, outputs }: ForwardInputs): Tensor | null {
  const { g, attend, nPasses } = step
  const { layers, outputNorm, output, softcap } = decoder
  const x = throughLayers(
    layers.map(({ attention }) => attention),
    {
      nPasses,
      x: embed(g, decoder, { tokens, positions: step.positions }),
      run: (il, before, pass) =>
        g.within({ il, part: 'residual' }, () => {
          const { attention, attentionNorm, ...rest } = layers[il]!
          let attended = attend(attention, normed(g, attentionNorm, before), pass)
          let residual = before
          // Of the last layer only what becomes logits is computed further.
          if (il === layers.length - 1) {
            if (outputs === null) return residual
            attended &&= g.getRows(attended, outputs)
            residual = g.getRows(residual, outputs)
          }
          return feedForward(g, rest, attended ? g.add(normed(g, rest.attentionPostNorm, attended), residual) : residual)
        }),
    },
  )
  if (outputs === null) return null
  const last = normed(g, outputNorm, x)
  return g.within({ part: 'logits' }, () => {
    const logits = g.mulMat(output, last)
    return softcap === null ? logits : g.scale(g.tanh(g.scale(logits, 1 / softcap)), softcap)
  })
}

/** f32[nEmbd, n] */
export function embed(g: Graph, decoder: Decoder, { tokens, positions }: { tokens: Tensor; positions: Tensor }): Tensor {
  const { tokenEmbedding, embeddingScale, positionEmbedding } = decoder
  return g.within({ part: 'embedding' }, () => {
    const rows = g.getRows(tokenEmbedding, tokens)
    const x = embeddingScale === 1 ? rows : g.scale(rows, embeddingScale)
    return positionEmbedding ? g.add(x, g.getRows(positionEmbedding, positions)) : x
  })
}

export function feedForward(g: Graph, layer: Pick<DecoderLayer, 'mlp' | 'mlpNorm' | 'mlpPostNorm'>, x: Tensor): Tensor {
  const before = normed(g, layer.mlpNorm, x)
  const after = g.within({ part: 'feed-forward' }, () => mlp(g, layer.mlp, before))
  return g.add(normed(g, layer.mlpPostNorm, after), x)
}

function normed(g: Graph, by: Norm | null, x: Tensor): Tensor {
  return by ? g.within({ part: 'norm' }, () => norm(g, by, x)) : x
}
