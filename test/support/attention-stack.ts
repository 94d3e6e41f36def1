/** Some attention layers on a residual stream, x ← x + attention(norm x), for methods by which layers share; and plain loops. */
import type { Step } from '../../src/attention/step.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import { throughLayers } from '../../src/models/stack.ts'
import { TestLayer } from './attention-layer.ts'
import { layerWeights, type LayerWeights, N_EMBD, type TestShape } from './layer-shape.ts'
import { Oracle } from './oracle.ts'

export const N_LAYER = 5
const EPS = 1e-6

export class TestStack extends TestLayer {
  readonly #weights = Array.from({ length: N_LAYER }, (_, il) => this.weightsOf(il))

  protected weightsOf(il: number): LayerWeights {
    return layerWeights(this.shape, il)
  }

  protected override get nLayer(): number {
    return N_LAYER
  }

  protected override forward({ g, attend, nPasses }: Step, x: Tensor): Tensor {
    const layers = this.#weights.map((weights, il) => this.layer(g, il, weights))
    return throughLayers(layers, {
      nPasses,
      x,
      run(il, before, pass) {
        const attended = attend(layers[il]!, g.rmsNorm(before, EPS), pass)
        return attended ? g.add(before, attended) : before
      },
    })
  }

  override oracle(x: Float32Array): StackOracle {
    return new StackOracle(this.shape, this.#weights, x)
  }
}

/** What attention of one layer adds, f64[nEmbd, T]; null for nothing. */
type OracleLayer = (layer: Oracle, il: number) => Float64Array | null

export class StackOracle extends Oracle {
  readonly #weights: readonly LayerWeights[]

  constructor(shape: TestShape, weights: readonly LayerWeights[], x: Float32Array) {
    super(shape, weights[0]!, x)
    this.#weights = weights
  }

  /** Layer `il` for residuals x f64[nEmbd, T]. */
  at(il: number, x: Float64Array): Oracle {
    return new Oracle(this.shape, this.#weights[il]!, normed(x), il)
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
