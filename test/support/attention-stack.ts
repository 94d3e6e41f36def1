/** Some attention layers on a residual stream, x ← x + attention(norm x), for methods by which layers share; and plain loops. */
import type { Attend } from '../../src/attention/attention.ts'
import type { Step } from '../../src/attention/method.ts'
import type { ModelShape } from '../../src/core/shape.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { TestLayer } from './attention-layer.ts'
import { type LayerShape, layerWeights, type LayerWeights, N_EMBD } from './layer-shape.ts'
import { Oracle } from './oracle.ts'

export const N_LAYER = 5
const EPS = 1e-6

export class TestStack extends TestLayer {
  readonly #weights = Array.from({ length: N_LAYER }, (_, il) => layerWeights(this.shape, il))

  override get modelShape(): ModelShape {
    return { ...super.modelShape, nLayer: N_LAYER }
  }

  protected override get nRuns(): number {
    return N_LAYER
  }

  protected override forward(step: Step, attend: Attend, x: Tensor): Tensor {
    const { g } = step
    return this.#weights.reduce((before, weights, il) => {
      const attended = attend(this.layer(g, il, weights), g.rmsNorm(before, EPS))
      return attended ? g.add(before, attended) : before
    }, x)
  }

  override oracle(x: Float32Array): StackOracle {
    return new StackOracle(this.shape, this.#weights, x)
  }
}

/** What attention of one layer adds, f64[nEmbd, T]; null for nothing. */
type OracleLayer = (layer: Oracle, il: number) => Float64Array | null

export class StackOracle extends Oracle {
  readonly #weights: readonly LayerWeights[]
  readonly #x: Float32Array

  constructor(shape: LayerShape, weights: readonly LayerWeights[], x: Float32Array) {
    super(shape, weights[0]!, x)
    this.#weights = weights
    this.#x = x
  }

  /** f64[nEmbd, T] after all layers. */
  stack(attend: OracleLayer): Float64Array {
    return this.#weights.reduce((x, weights, il) => {
      const added = attend(new Oracle(this.shape, weights, normed(x)), il)
      return added ? x.map((value, i) => value + added[i]!) : x
    }, Float64Array.from(this.#x))
  }

  override dense(): Float64Array {
    return this.stack((layer) => layer.dense())
  }
}

/** x / √(mean x² + ε), token by token. */
function normed(x: Float64Array): Float64Array {
  return x.map((value, i) => {
    const token = x.subarray(i - (i % N_EMBD), i - (i % N_EMBD) + N_EMBD)
    return value / Math.sqrt(token.reduce((sum, v) => sum + v * v, 0) / N_EMBD + EPS)
  })
}
