/**
 * ggml's operations as methods, under their C names without the prefix. Each checks its shapes in TypeScript first,
 * for ggml aborts the process where they do not fit, and each knows the shape of its result without asking C.
 */
import koffi from 'koffi'
import type { Pointer } from './bindings.ts'
import { ggml } from './library.ts'
import { check, elementBytes, isContiguous, nElements, type Shape, shapeOf, stridesOf, type Tensor } from './tensor.ts'
import { F16, F32, I32 } from './types.ts'

/** Rotary embedding: `mode` 0 rotates neighbouring pairs, 2 (NeoX) the two halves of a head. */
export interface RopeParams {
  readonly mode: 0 | 2
  /** Elements of each head that are rotated. */
  readonly nDims: number
  readonly nCtxOrig: number
  readonly freqBase: number
  readonly freqScale: number
  readonly extFactor: number
  readonly attnFactor: number
  readonly betaFast: number
  readonly betaSlow: number
}

/** What becomes of scores before they are probabilities; see LayerShape and AttentionLayer. */
export interface FlashParams {
  readonly scale: number
  readonly softcap: number | null
  /** f32[H], one score more per head. */
  readonly sinks: Tensor | null
}

/** `offsetof(struct ggml_tensor, …)` of the pinned version; elements of 8 bytes. */
const NE_OFFSET = 16
const NB_OFFSET = 48

export class Ops {
  protected readonly api: ReturnType<typeof ggml> = ggml()
  /** The ggml context that holds the tensors' descriptions. */
  protected readonly context: Pointer

  constructor(context: Pointer) {
    this.context = context
  }

  protected made(ptr: Pointer, type: number, ne: Shape, nb: Shape = stridesOf(type, ne)): Tensor {
    return { ptr, type, ne, nb }
  }

  private like(ptr: Pointer, t: Tensor): Tensor {
    return this.made(ptr, t.type, t.ne)
  }

  add(a: Tensor, b: Tensor): Tensor {
    check(repeats(b, a), 'add', a, b)
    return this.like(this.api.ggml_add(this.context, a.ptr, b.ptr), a)
  }

  /** Adds b to a's own memory; the result is a. */
  addInplace(a: Tensor, b: Tensor): Tensor {
    check(repeats(b, a) && a.type === F32 && b.type === F32, 'addInplace', a, b)
    return this.made(this.api.ggml_add_inplace(this.context, a.ptr, b.ptr), a.type, a.ne, a.nb)
  }

  sub(a: Tensor, b: Tensor): Tensor {
    check(repeats(b, a), 'sub', a, b)
    return this.like(this.api.ggml_sub(this.context, a.ptr, b.ptr), a)
  }

  mul(a: Tensor, b: Tensor): Tensor {
    check(repeats(b, a), 'mul', a, b)
    return this.like(this.api.ggml_mul(this.context, a.ptr, b.ptr), a)
  }

  div(a: Tensor, b: Tensor): Tensor {
    check(repeats(b, a) && a.type === F32 && b.type === F32, 'div', a, b)
    return this.like(this.api.ggml_div(this.context, a.ptr, b.ptr), a)
  }

  sqrt(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'sqrt', a)
    return this.like(this.api.ggml_sqrt(this.context, a.ptr), a)
  }

  sqr(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'sqr', a)
    return this.like(this.api.ggml_sqr(this.context, a.ptr), a)
  }

  log(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'log', a)
    return this.like(this.api.ggml_log(this.context, a.ptr), a)
  }

  abs(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'abs', a)
    return this.like(this.api.ggml_abs(this.context, a.ptr), a)
  }

  scale(a: Tensor, factor: number): Tensor {
    return this.like(this.api.ggml_scale(this.context, a.ptr, factor), a)
  }

  /** a · factor + bias. */
  scaleBias(a: Tensor, factor: number, bias: number): Tensor {
    check(isContiguous(a) && a.type === F32, 'scaleBias', a)
    return this.like(this.api.ggml_scale_bias(this.context, a.ptr, factor, bias), a)
  }

  floor(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'floor', a)
    return this.like(this.api.ggml_floor(this.context, a.ptr), a)
  }

  /** 1 where a > 0, else 0. */
  step(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'step', a)
    return this.like(this.api.ggml_step(this.context, a.ptr), a)
  }

  relu(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'relu', a)
    return this.like(this.api.ggml_relu(this.context, a.ptr), a)
  }

  /** x / (1 + exp(-x)). */
  silu(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'silu', a)
    return this.like(this.api.ggml_silu(this.context, a.ptr), a)
  }

  /** x · Φ(x), with the approximation by tanh. */
  gelu(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'gelu', a)
    return this.like(this.api.ggml_gelu(this.context, a.ptr), a)
  }

  tanh(a: Tensor): Tensor {
    check(isContiguous(a) && a.type === F32, 'tanh', a)
    return this.like(this.api.ggml_tanh(this.context, a.ptr), a)
  }

  /** (x - mean) / √(variance + eps) along dimension 0. */
  norm(a: Tensor, eps: number): Tensor {
    check(a.type === F32, 'norm', a)
    return this.like(this.api.ggml_norm(this.context, a.ptr, eps), a)
  }

  /** x / √(mean(x²) + eps) along dimension 0. */
  rmsNorm(a: Tensor, eps: number): Tensor {
    check(a.type === F32, 'rmsNorm', a)
    return this.like(this.api.ggml_rms_norm(this.context, a.ptr, eps), a)
  }

  /** silu(gate) · up. */
  swigluSplit(gate: Tensor, up: Tensor): Tensor {
    check(sameShape(gate, up) && gate.type === up.type, 'swigluSplit', gate, up)
    return this.like(this.api.ggml_swiglu_split(this.context, gate.ptr, up.ptr), gate)
  }

  /** gelu(gate) · up, with the approximation by tanh. */
  gegluSplit(gate: Tensor, up: Tensor): Tensor {
    check(sameShape(gate, up) && gate.type === up.type, 'gegluSplit', gate, up)
    return this.like(this.api.ggml_geglu_split(this.context, gate.ptr, up.ptr), gate)
  }

  /** `[n, m, …] · [n, k, …] → f32[m, k, …]`; a's outer dimensions are repeated over b's. */
  mulMat(a: Tensor, b: Tensor): Tensor {
    const fits = a.ne[0] === b.ne[0] && b.ne[2] % a.ne[2] === 0 && b.ne[3] % a.ne[3] === 0
    const straight = a.nb[0] === elementBytes(a.type) && a.nb[0] <= a.nb[1] && b.nb[0] === elementBytes(b.type)
    check(fits && straight && (b.type === F32 || (b.type === F16 && a.type === F16)), 'mulMat', a, b)
    return this.made(this.api.ggml_mul_mat(this.context, a.ptr, b.ptr), F32, [a.ne[1], b.ne[1], b.ne[2], b.ne[3]])
  }

  /** `[m, n, …] · [k, n, …] → [m, k, …]`, summed over dimension 1; a's outer dimensions are repeated over b's. */
  outProd(a: Tensor, b: Tensor): Tensor {
    const fits = a.ne[1] === b.ne[1] && b.ne[2] % a.ne[2] === 0 && b.ne[3] % a.ne[3] === 0
    const straight = a.nb[0] === 4 && a.nb[0] <= a.nb[1] && a.type === F32 && b.type === F32
    check(fits && straight, 'outProd', a, b)
    return this.made(this.api.ggml_out_prod(this.context, a.ptr, b.ptr), F32, [a.ne[0], b.ne[0], b.ne[2], b.ne[3]])
  }

  /** `[n, …] → [1, …]`. */
  sumRows(a: Tensor): Tensor {
    check(a.type === F32, 'sumRows', a)
    return this.made(this.api.ggml_sum_rows(this.context, a.ptr), F32, [1, a.ne[1], a.ne[2], a.ne[3]])
  }

  /** Of all elements: f32[1]. */
  sum(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'sum', a)
    return this.made(this.api.ggml_sum(this.context, a.ptr), F32, shapeOf(1))
  }

  /** The mean over columns of -Σ target · log softmax(logits): two f32[n, m] → f32[1]. Logits must be finite. */
  crossEntropyLoss(logits: Tensor, targets: Tensor): Tensor {
    const fits = sameShape(logits, targets) && logits.type === F32 && targets.type === F32
    check(fits && isContiguous(logits) && isContiguous(targets), 'crossEntropyLoss', logits, targets)
    return this.made(this.api.ggml_cross_entropy_loss(this.context, logits.ptr, targets.ptr), F32, shapeOf(1))
  }

  /** a as often as fills `ne`. */
  repeat(a: Tensor, ...ne: readonly number[]): Tensor {
    const shape = shapeOf(...ne)
    check(
      shape.every((n, i) => n % a.ne[i]! === 0),
      `repeat to [${ne.join(',')}]`,
      a,
    )
    return this.made(this.api.ggml_repeat_4d(this.context, a.ptr, ...shape), a.type, shape)
  }

  concat(a: Tensor, b: Tensor, dim: 0 | 1 | 2 | 3): Tensor {
    check(a.type === b.type && a.ne.every((n, i) => i === dim || n === b.ne[i]), 'concat', a, b)
    const ne = a.ne.map((n, i) => (i === dim ? n + b.ne[i]! : n)) as unknown as Shape
    return this.made(this.api.ggml_concat(this.context, a.ptr, b.ptr, dim), a.type, ne)
  }

  /** Rows `index` of a: `[d, n, h] , i32[k, h] → f32[d, k, h]`. */
  getRows(a: Tensor, index: Tensor): Tensor {
    const fits = a.ne[2] === index.ne[1] && a.ne[3] === index.ne[2] && index.ne[3] === 1
    check(fits && index.type === I32, 'getRows', a, index)
    const type = a.type === I32 ? I32 : F32
    const ne: Shape = [a.ne[0], index.ne[0], index.ne[1], index.ne[2]]
    return this.made(this.api.ggml_get_rows(this.context, a.ptr, index.ptr), type, ne)
  }

  /** Writes the rows of `rows` to rows `index` of `into`, converting to its type; the indices must be within it. */
  setRows(into: Tensor, rows: Tensor, index: Tensor): Tensor {
    const fits = into.ne[0] === rows.ne[0] && into.ne[2] === rows.ne[2] && into.ne[3] === rows.ne[3]
    const indexed = rows.ne[1] === index.ne[0] && rows.ne[2] % index.ne[1] === 0 && rows.ne[3] % index.ne[2] === 0
    check(fits && indexed && rows.type === F32 && index.type === I32, 'setRows', into, rows, index)
    const ptr = this.api.ggml_set_rows(this.context, into.ptr, rows.ptr, index.ptr)
    return this.made(ptr, into.type, into.ne, into.nb)
  }

  /**
   * Like {@link getRows}, but in a's own type: of f16 `[n, …]` with an even n, pairs of elements are copied as if they were f32,
   * so nothing is widened. Half the memory of getRows.
   */
  getRowsAsStored(a: Tensor, index: Tensor): Tensor {
    const [n, m, h, more] = a.ne
    if (a.type === F32) return this.getRows(a, index)
    check(a.type === F16 && n % 2 === 0 && a.nb.slice(1).every((stride) => stride % 4 === 0), 'getRowsAsStored', a, index)
    const pairs = this.reinterpret(this.view(a, [n / 2, m, h, more], [a.nb[1], a.nb[2], a.nb[3]]), F32, n / 2)
    return this.reinterpret(this.getRows(pairs, index), F16, n)
  }

  /** The same memory as elements of another type, `n` along dimension 0. */
  private reinterpret(a: Tensor, type: number, n: number): Tensor {
    const t = this.view(a, a.ne, [a.nb[1], a.nb[2], a.nb[3]])
    koffi.encode(t.ptr, 'int32_t', type)
    koffi.encode(t.ptr, NE_OFFSET, 'int64_t', n)
    koffi.encode(t.ptr, NB_OFFSET, 'size_t', elementBytes(type))
    return this.made(t.ptr, type, [n, a.ne[1], a.ne[2], a.ne[3]], [elementBytes(type), a.nb[1], a.nb[2], a.nb[3]])
  }

  /** Element [i, j] of each matrix of a becomes -∞ where i > nPast + j, in a's own memory. */
  diagMaskInf(a: Tensor, nPast: number): Tensor {
    check(a.type === F32 && isContiguous(a) && nPast >= 0, `diagMaskInf from ${nPast}`, a)
    return this.like(this.api.ggml_diag_mask_inf_inplace(this.context, a.ptr, nPast), a)
  }

  /**
   * softmax(a · scale + mask) along dimension 0; the mask is repeated over a's outer dimensions. `sinks` f32[ne2] are one score
   * more per matrix of dimension 2, of which nothing is in the result.
   */
  softMaxExt(a: Tensor, mask: Tensor | null, scale: number, sinks: Tensor | null = null): Tensor {
    const fits = !mask || (mask.ne[0] === a.ne[0] && mask.ne[1] >= a.ne[1] && a.ne[2] % mask.ne[2] === 0)
    check(isContiguous(a) && a.type === F32 && fits, 'softMaxExt', a, ...(mask ? [mask] : []))
    const t = this.like(this.api.ggml_soft_max_ext(this.context, a.ptr, mask?.ptr ?? null, scale, 0), a)
    if (sinks) {
      check(sinks.type === F32 && sinks.ne[0] === a.ne[2] && nElements(sinks.ne) === a.ne[2], 'softMaxExt with sinks', a, sinks)
      this.api.ggml_soft_max_add_sinks(t.ptr, sinks.ptr)
    }
    return t
  }

  /** The largest of every `size` neighbours: `[n, …] → f32[n / size, …]`. */
  maxPool(a: Tensor, size: number): Tensor {
    check(a.ne[0] % size === 0 && a.type === F32 && isContiguous(a), `maxPool of ${size}`, a)
    const ptr = this.api.ggml_pool_1d(this.context, a.ptr, 0, size, size, 0)
    return this.made(ptr, F32, [a.ne[0] / size, a.ne[1], a.ne[2], a.ne[3]])
  }

  /** Where the `k` largest along dimension 0 are, in no order: `f32[n, …] → i32[k, …]`. */
  topK(a: Tensor, k: number): Tensor {
    check(k >= 1 && k <= a.ne[0] && a.type === F32 && isContiguous(a), `topK of ${k}`, a)
    return this.made(this.api.ggml_top_k(this.context, a.ptr, k), I32, [k, a.ne[1], a.ne[2], a.ne[3]])
  }

  /** Where the elements along dimension 0 are in ascending order: `f32[n, …] → i32[n, …]`. */
  argsort(a: Tensor): Tensor {
    check(a.type === F32 && isContiguous(a), 'argsort', a)
    return this.made(this.api.ggml_argsort(this.context, a.ptr, 0), I32, a.ne)
  }

  /** Rotates `[d, heads, n]` by `positions` i32[n]; `factors` f32[nDims / 2] divide the frequencies. */
  ropeExt(a: Tensor, positions: Tensor, factors: Tensor | null, p: RopeParams): Tensor {
    const fits = positions.ne[0] === a.ne[2] && positions.type === I32 && p.nDims <= a.ne[0] && p.nDims % 2 === 0
    check(fits && (!factors || factors.ne[0] >= p.nDims / 2), 'ropeExt', a, positions)
    const { nDims, mode, nCtxOrig, freqBase, freqScale, extFactor, attnFactor, betaFast, betaSlow } = p
    const head = [this.context, a.ptr, positions.ptr, factors?.ptr ?? null, nDims, mode, nCtxOrig] as const
    return this.like(this.api.ggml_rope_ext(...head, freqBase, freqScale, extFactor, attnFactor, betaFast, betaSlow), a)
  }

  /**
   * Dense attention in one pass: q f32`[d, n, H, b]`, k and v `[d, m, G, b]`, mask f16`[m, n]` → f32`[d, H, n, b]`.
   * Quick for many queries; for one query over many keys `mulMat` + `softMaxExt` is faster on a CPU.
   */
  flashAttnExt(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, how: FlashParams): Tensor {
    const fits = q.ne[0] === k.ne[0] && q.ne[2] % k.ne[2] === 0 && k.ne[1] === v.ne[1] && k.ne[2] === v.ne[2]
    const batched = q.ne[3] === k.ne[3] && q.ne[3] === v.ne[3]
    const masked = !mask || (mask.type === F16 && isContiguous(mask) && mask.ne[0] === k.ne[1] && mask.ne[1] >= q.ne[1])
    check(fits && batched && masked && q.type === F32, 'flashAttnExt', q, k, v)
    const { scale, softcap, sinks } = how
    const ptr = this.api.ggml_flash_attn_ext(this.context, q.ptr, k.ptr, v.ptr, mask?.ptr ?? null, scale, 0, softcap ?? 0)
    if (sinks) {
      check(sinks.type === F32 && nElements(sinks.ne) === q.ne[2], 'flashAttnExt with sinks', q, sinks)
      this.api.ggml_flash_attn_ext_add_sinks(ptr, sinks.ptr)
    }
    return this.made(ptr, F32, [v.ne[0], q.ne[2], q.ne[1], q.ne[3]])
  }

  /** Copies a into b's memory, element by element in order, converting to its type; the result is b. */
  cpy(a: Tensor, b: Tensor): Tensor {
    check(nElements(a.ne) === nElements(b.ne), 'cpy', a, b)
    return this.made(this.api.ggml_cpy(this.context, a.ptr, b.ptr), b.type, b.ne, b.nb)
  }

  /** A contiguous copy. */
  cont(a: Tensor): Tensor {
    return this.like(this.api.ggml_cont(this.context, a.ptr), a)
  }

  /** A contiguous copy in another type. */
  cast(a: Tensor, type: number): Tensor {
    return this.made(this.api.ggml_cast(this.context, a.ptr, type), type, a.ne)
  }

  reshape(a: Tensor, ...ne: readonly number[]): Tensor {
    const shape = shapeOf(...ne)
    check(isContiguous(a) && nElements(a.ne) === nElements(shape), `reshape to [${ne.join(',')}]`, a)
    return this.made(this.api.ggml_reshape_4d(this.context, a.ptr, ...shape), a.type, shape)
  }

  /** A window on a's memory: `nb` are the strides of dimensions 1…3 and `offset` its start, in bytes. */
  view(a: Tensor, ne: Shape, nb: readonly [number, number, number], offset = 0): Tensor {
    const strides: Shape = [a.nb[0], ...nb]
    // ggml wants even the window's elements packed together to fit.
    const last = offset + Math.max(span(a.type, ne, strides), span(a.type, ne, stridesOf(a.type, ne)))
    check(offset >= 0 && last <= span(a.type, a.ne, a.nb), `view of [${ne.join(',')}] at ${offset}`, a)
    return this.made(this.api.ggml_view_4d(this.context, a.ptr, ...ne, ...nb, offset), a.type, ne, strides)
  }

  /**
   * a[m, j, 1, k] as if it were repeated n times in dimension 2: [m, j, n, k], a window with a stride of 0. For operations that
   * read through strides. ggml's own view wants room for all elements, so the repetition is written into the finished one.
   */
  broadcast(a: Tensor, n: number): Tensor {
    check(a.ne[2] === 1, 'broadcast', a)
    const t = this.view(a, a.ne, [a.nb[1], a.nb[2], a.nb[3]])
    koffi.encode(t.ptr, NE_OFFSET + 8 * 2, 'int64_t', n)
    koffi.encode(t.ptr, NB_OFFSET + 8 * 2, 'size_t', 0)
    return this.made(t.ptr, a.type, [a.ne[0], a.ne[1], n, a.ne[3]], [a.nb[0], a.nb[1], 0, a.nb[3]])
  }

  /** Dimension i of a becomes dimension `axes[i]`; no data moves. */
  permute(a: Tensor, ...axes: readonly [number, number, number, number]): Tensor {
    const ne: number[] = []
    const nb: number[] = []
    for (const [from, to] of axes.entries()) {
      ne[to] = a.ne[from]!
      nb[to] = a.nb[from]!
    }
    check(ne.length === 4 && !ne.includes(undefined as never), `permute ${axes.join(',')}`, a)
    const ptr = this.api.ggml_permute(this.context, a.ptr, ...axes)
    return this.made(ptr, a.type, ne as unknown as Shape, nb as unknown as Shape)
  }
}

function sameShape(a: Tensor, b: Tensor): boolean {
  return a.ne.every((n, i) => n === b.ne[i])
}

/** Whether a, repeated, fills b. */
function repeats(a: Tensor, b: Tensor): boolean {
  return b.ne.every((n, i) => n % a.ne[i]! === 0)
}

/** Bytes from the first to behind the last element of a strided tensor. */
function span(type: number, ne: Shape, nb: Shape): number {
  const row = stridesOf(type, ne)[1]
  return row + (ne[1] - 1) * nb[1] + (ne[2] - 1) * nb[2] + (ne[3] - 1) * nb[3]
}
