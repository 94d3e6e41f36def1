/** Gradients from ggml's backward pass, and the same from differences of the loss. */
import type { Backend } from '../../src/ggml/backend.ts'
import { Graph, Scratch } from '../../src/ggml/graph.ts'
import type { Tensor } from '../../src/ggml/tensor.ts'
import type { Parameter } from '../../src/train/parameter.ts'
import { TrainGraph } from '../../src/train/train-graph.ts'
import { normals } from './random.ts'

/** Step of the differences: its fourth power is the error of the formula, and 1e-7 / step that of f32. */
const STEP = 0.02
const MAX_NODES = 2000

export type RecordLoss = (g: Graph) => Tensor

/** Σ y · w with fixed random w: every element of y counts, each differently. */
export function weighted(g: Graph, y: Tensor): Tensor {
  const w = g.input(0, y.ne, (data) => data.set(normals(data.length, 99)))
  return g.sum(g.mul(g.cont(y), w))
}

/** The loss; gradients are added to the parameters'. */
export async function backward(backend: Backend, parameters: readonly Parameter[], record: RecordLoss): Promise<number> {
  using scratch = new Scratch(backend.bufferType)
  using g = new TrainGraph(MAX_NODES)
  const loss = record(g)
  g.backward(loss, parameters)
  g.plan(scratch)
  g.fillInputs()
  await backend.compute(g, true)
  return g.read(loss, new Float32Array(1))[0]!
}

/**
 * The largest difference between the two gradients of at most `nElements` of each parameter, relative to the largest element
 * of that parameter's gradient.
 */
export async function gradientError(
  backend: Backend,
  parameters: readonly Parameter[],
  { record, nElements = 24, step = STEP }: { readonly record: RecordLoss; readonly nElements?: number; readonly step?: number },
): Promise<{ readonly error: number; readonly worst: string }> {
  for (const { trained } of parameters) trained!.gradient.data.fill(0)
  await backward(backend, parameters, record)
  using scratch = new Scratch(backend.bufferType)
  using g = new Graph(MAX_NODES)
  const loss = g.output(record(g))
  g.plan(scratch)
  const at = async (data: Float32Array, i: number, value: number): Promise<number> => {
    data[i] = value
    g.fillInputs()
    await backend.compute(g, true)
    return g.read(loss, new Float32Array(1))[0]!
  }
  let [error, worst] = [0, '']
  for (const { name, data, trained } of parameters) {
    const gradient = trained!.gradient.data
    const scale = gradient.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
    const stride = Math.max(1, Math.floor(data.length / nElements))
    for (let i = 0; i < data.length; i += stride) {
      const x = data[i]!
      const near = (await at(data, i, x + step)) - (await at(data, i, x - step))
      const far = (await at(data, i, x + 2 * step)) - (await at(data, i, x - 2 * step))
      data[i] = x
      const difference = Math.abs((8 * near - far) / (12 * step) - gradient[i]!) / scale
      if (!(difference <= error)) [error, worst] = [difference, `${name}[${i}]`]
    }
  }
  return { error, worst }
}
