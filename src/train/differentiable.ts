/**
 * What ggml's backward pass can do, checked before it is built: ggml ends the process at an operation it cannot go back
 * through. Of the pinned version, read in `ggml_compute_backward` and the kernels it uses, on the CPU:
 *
 * - There is none for concat, set_rows, flash attention, sorting, pooling, clamp, l2 norm and in-place operations. Heads are
 *   put together by permute and cont, attention is mul_mat + soft_max_ext + mul_mat, masks are added by soft_max_ext.
 * - mul_mat repeats its first factor over dimension 2 (as heads share KV heads) only where dimension 3 is 1: sequences of a
 *   batch are therefore laid beside each other in the heads' dimension. The first factor is f32, f16 or quantised, never bf16.
 * - sub and div do not repeat their second operand. add and mul do. Neither repeats the first.
 * - get_rows goes back for a matrix and a list of indices, not for stacks of them.
 * - soft_max_ext has no gradient for its mask, rope none for positions and factors, cross_entropy_loss none for the targets.
 *   A row whose keys are all masked becomes NaN: let it see one, and multiply its output by 0.
 * - cross_entropy_loss multiplies log-probabilities by targets: logits of -∞ give NaN even where the target is 0; use -1e9.
 * - Only split SwiGLU has one among the gated units; silu and mul do the same.
 * - A view goes back by way of a zeroed copy of the whole tensor, and only of a contiguous one: prefer reshape and permute.
 * - cpy passes the gradient to what is copied. A pass that shall not be differentiated takes the parameters' `constant`s.
 *
 * repeat_back (the gradient of what was repeated) and get_rows_back run on one thread. mul_mat goes back through out_prod,
 * twice: at about half the speed of mul_mat.
 */
import koffi from 'koffi'
import type { Pointer } from '../ggml/bindings.ts'
import { ggml } from '../ggml/library.ts'

const DIFFERENTIABLE = new Set(
  (
    'ADD SUB MUL DIV SQR SQRT LOG ABS STEP RELU SILU SCALE SUM SUM_ROWS REPEAT RMS_NORM MUL_MAT SOFT_MAX ROPE SWIGLU ' +
    'CPY CONT RESHAPE VIEW PERMUTE GET_ROWS CROSS_ENTROPY_LOSS'
  ).split(' '),
)
const MAY_BE_VIEWS = new Set('CPY VIEW RESHAPE PERMUTE'.split(' '))
/** Operands without a gradient: one that needs it cannot be there. */
const CONSTANT_OPERANDS: { readonly [op: string]: readonly number[] } = { SOFT_MAX: [1], ROPE: [1, 2], CROSS_ENTROPY_LOSS: [1] }
/** Operands whose gradient is not asked for. */
const IGNORED_OPERANDS: { readonly [op: string]: readonly number[] } = { CPY: [1], GET_ROWS: [1], STEP: [0] }

/** Offsets in `struct ggml_tensor` of the pinned version. */
const [NE, NB, SRC, VIEW_SRC] = [16, 48, 152, 232]
const MAX_SRC = 10

/** Throws if `nodes`, a forward pass in order, cannot be differentiated with respect to `parameters`. */
export function checkDifferentiable(nodes: readonly Pointer[], parameters: ReadonlySet<Pointer>): void {
  const needed = new Set<Pointer>()
  for (const node of nodes) {
    if (parameters.has(node)) needed.add(node)
    const sources = sourcesOf(node)
    const op = sources.length === 0 ? 'NONE' : ggml().ggml_op_desc(node)
    const asked = sources.flatMap((s, i) => (needed.has(s) && !IGNORED_OPERANDS[op]?.includes(i) ? [i] : []))
    if (asked.length === 0) continue
    needed.add(node)
    const reason = refusal(op, node, { sources, asked })
    if (reason !== null) throw new Error(`ggml cannot go back through ${op} [${shape(node).join(',')}]: ${reason}`)
  }
}

interface Operands {
  readonly sources: readonly Pointer[]
  /** Those whose gradients are asked for. */
  readonly asked: readonly number[]
}

function refusal(op: string, node: Pointer, { sources, asked }: Operands): string | null {
  if (!DIFFERENTIABLE.has(op)) return 'it has no gradient'
  if (koffi.decode(node, VIEW_SRC, 'void *') !== null && !MAY_BE_VIEWS.has(op)) return 'it works in place'
  const constant = asked.find((i) => CONSTANT_OPERANDS[op]?.includes(i))
  if (constant !== undefined) return `operand ${constant} has no gradient`
  const [a, b] = sources.map(shape)
  const isSame = b === undefined || a!.every((n, i) => n === b[i])
  if ((op === 'SUB' || op === 'DIV') && asked.includes(1) && !isSame) return 'its second operand is repeated'
  const isStack = op === 'MUL_MAT' ? a![2] !== b![2] && b![3]! > 1 : false
  if (isStack && asked.includes(0)) return 'its first factor is repeated within stacks'
  if (op === 'MUL_MAT' && asked.includes(0) && a![3] !== b![3]) return 'its first factor is repeated over dimension 3'
  if (op === 'GET_ROWS' && (a![2]! > 1 || a![3]! > 1 || b![1]! > 1)) return 'it looks up rows of several matrices'
  if (op === 'VIEW' && !isDense(sources[0]!)) return 'it is a view of something not contiguous'
  return null
}

function sourcesOf(node: Pointer): Pointer[] {
  const sources = Array.from({ length: MAX_SRC }, (_, i) => koffi.decode(node, SRC + 8 * i, 'void *') as Pointer | null)
  while (sources.length > 0 && sources.at(-1) === null) sources.pop()
  return sources as Pointer[]
}

function shape(t: Pointer): number[] {
  return Array.from(koffi.decode(t, NE, koffi.array('int64_t', 4)) as BigInt64Array, Number)
}

/** Of f32. */
function isDense(t: Pointer): boolean {
  const strides = Array.from(koffi.decode(t, NB, koffi.array('size_t', 4)) as BigUint64Array, Number)
  let bytes = 4
  return shape(t).every((n, i) => {
    const fits = n === 1 || strides[i] === bytes
    bytes *= n
    return fits
  })
}
