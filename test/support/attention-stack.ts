/** Some attention layers on a residual stream, x ← x + attention(norm x), for methods by which layers share; and plain loops. */
import type { Attend } from '../../src/attention/attention.ts'
import type { Step } from '../../src/attention/method.ts'
import type { ModelShape } from '../../src/core/shape.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { throughLayers } from '../../src/models/stack.ts'
import { TestLayer } from './attention-layer.ts'
import { type LayerShape, layerWeights, type LayerWeights, N_EMBD } from './layer-shape.ts'
import { Oracle } from './oracle.ts'

export const N_LAYER = 5
const EPS = 1e-6
/** Of layers that run several times. */
const MOST_PASSES = 48

export class TestStack extends TestLayer {
  readonly #weights = Array.from({ length: N_LAYER }, (_, il) => this.weightsOf(il))

  protected weightsOf(il: number): LayerWeights {
    return layerWeights(this.shape, il)
  }

  override get modelShape(): ModelShape {
    return { ...super.modelShape, nLayer: N_LAYER }
  }

  protected override get nRuns(): number {
    return N_LAYER * MOST_PASSES
  }

  protected override forward(step: Step, attend: Attend, x: Tensor): Tensor {
    const { g, cycles = [] } = step
    const layers = this.#weights.map((weights, il) => this.layer(g, il, weights))
    const run = (il: number, before: Tensor): Tensor => {
      const attended = attend(layers[il]!, g.rmsNorm(before, EPS))
      return attended ? g.add(before, attended) : before
    }
    return throughLayers(N_LAYER, cycles, { x, run })
  }

  override oracle(x: Float32Array): StackOracle {
    return new StackOracle(this.shape, this.#weights, x)
  }
}

/** What attention of one layer adds, f64[nEmbd, T]; null for nothing. */
type OracleLayer = (layer: Oracle, il: number) => Float64Array | null

export class StackOracle extends Oracle {
  readonly #weights: readonly LayerWeights[]

  constructor(shape: LayerShape, weights: readonly LayerWeights[], x: Float32Array) {
    super(shape, weights[0]!, x)
    this.#weights = weights
  }

  /** Layer `il` for residuals x f64[nEmbd, T]. */
  at(il: number, x: Float64Array): Oracle {
    return new Oracle(this.shape, this.#weights[il]!, normed(x))
  }

  /** f64[nEmbd, T] after all layers. */
  stack(attend: OracleLayer): Float64Array {
    return this.#weights.reduce((x, _, il) => {
      const added = attend(this.at(il, x), il)
      return added ? x.map((value, i) => value + added[i]!) : x
    }, Float64Array.from(this.x))
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
