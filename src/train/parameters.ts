/** The parameters of a training run: those of a model's file, and new ones. */
import { KvasirError } from '../core/errors.ts'
import type { Backend } from '../ggml/backend.ts'
import { type Tensor, shapeOf } from '../ggml/tensor.ts'
import { BF16, F16, F32, typeName } from '../ggml/types.ts'
import { convertRows } from '../weights/convert.ts'
import { readTensor } from '../weights/read-tensor.ts'
import type { TensorInfo, WeightSource } from '../weights/source.ts'
import type { TensorSource } from '../weights/upload.ts'
import { Parameter } from './parameter.ts'

const FLOATS: readonly number[] = [F32, F16, BF16]
/** Divisors of RoPE's frequencies: ggml has no gradient for them. */
const NEVER_TRAINED = 'rope_freqs.weight'

export class Parameters implements Disposable {
  readonly #backend: Backend
  readonly #byName = new Map<string, Parameter>()

  constructor(backend: Backend) {
    this.#backend = backend
  }

  /** A new parameter of zeros; write its `data`. */
  add(name: string, ne: readonly number[], isTrained = true): Parameter {
    if (this.#byName.has(name)) throw new Error(`there is a parameter '${name}' already`)
    const parameter = new Parameter(this.#backend, name, { ne, isTrained })
    this.#byName.set(name, parameter)
    return parameter
  }

  get(name: string): Parameter | undefined {
    return this.#byName.get(name)
  }

  all(): Parameter[] {
    return [...this.#byName.values()]
  }

  trained(): Parameter[] {
    return this.all().filter(({ trained }) => trained !== null)
  }

  /**
   * The tensors of a model's file as parameters, under their names, for a function that declares a model. The result gives
   * `tensor` of each parameter, or with `as: 'constant'` its twin without gradients.
   * Errors: `model_invalid`, `model_unsupported` (quantised weights), `out_of_memory`.
   */
  from(source: WeightSource, { isTrained, as = 'tensor', prefix = '' }: FromOptions): TensorSource {
    const declare = (name: string, ne: readonly number[]): Tensor => {
      const parameter = this.#byName.get(prefix + name) ?? this.#load(source, name, { ne, isTrained, prefix })
      return parameter[as]
    }
    return {
      has: (name) => source.tensors.has(name),
      matrix: (name, nIn, nOut) => declare(name, [nIn, nOut]),
      rows: (name, width, n) => declare(name, [width, n]),
      vector: (name, n) => declare(name, [n]),
      constant: (values) => {
        const name = `constant.${this.#byName.size}`
        const parameter = this.add(name, [values.length], false)
        parameter.data.set(values)
        return parameter.tensor
      },
    }
  }

  #load(source: WeightSource, name: string, { ne, isTrained, prefix }: LoadOptions) {
    const info = source.tensors.get(name)
    const fail = (code: 'model_invalid' | 'model_unsupported', reason: string): never => {
      throw new KvasirError(code, { path: source.path, reason })
    }
    if (!info) return fail('model_invalid', `it has no tensor '${name}'`)
    const wanted = shapeOf(...ne)
    if (!info.ne.every((n, i) => n === wanted[i]))
      return fail('model_invalid', `tensor '${name}' is [${info.ne.join(', ')}], not [${wanted.join(', ')}]`)
    if (!FLOATS.includes(info.type))
      return fail('model_unsupported', `tensor '${name}' is ${typeName(info.type)}, and training starts from f32, f16 or bf16`)
    const parameter = this.add(prefix + name, ne, name !== NEVER_TRAINED && isTrained(name))
    parameter.data.set(readFloats(source, info))
    return parameter
  }

  [Symbol.dispose](): void {
    for (const parameter of this.#byName.values()) parameter[Symbol.dispose]()
    this.#byName.clear()
  }
}

export interface FromOptions {
  readonly isTrained: (name: string) => boolean
  readonly as?: 'tensor' | 'constant'
  /** Put before the names: several models among the parameters of one run. */
  readonly prefix?: string
}

interface LoadOptions {
  readonly ne: readonly number[]
  readonly isTrained: (name: string) => boolean
  readonly prefix: string
}

/** The elements of a tensor of floats, as f32. */
export function readFloats(source: WeightSource, info: TensorInfo): Float32Array {
  const bytes = readTensor(source, info)
  const converted = convertRows(bytes, {
    from: info.type,
    to: F32,
    nRows: info.ne[1] * info.ne[2] * info.ne[3],
    rowLength: info.ne[0],
  })
  return new Float32Array(converted.buffer)
}
