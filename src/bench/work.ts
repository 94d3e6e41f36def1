/** What an operation has to do: floating-point operations where they are known, and bytes that it reads and writes at least once. */
import type { Node } from '../ggml/node.ts'
import { nBytes, nElements, type Tensor } from '../ggml/tensor.ts'
import { typeName } from '../ggml/types.ts'

export interface Work {
  /** Null where nobody counts them. */
  readonly flops: number | null
  readonly bytes: number
}

export function workOf(node: Node): Work {
  const { op, sources } = node
  const [a, b] = sources
  switch (op) {
    case 'MUL_MAT':
      return { flops: 2 * a!.ne[0] * nElements(node.ne), bytes: traffic(node) }
    case 'FLASH_ATTN_EXT': // queries [d, n, H], keys [d, m, G], result [dV, H, n]
      return { flops: 2 * b!.ne[1] * (nElements(a!.ne) + nElements(node.ne)), bytes: traffic(node) }
    case 'GET_ROWS': // of a, only rows that are asked for
      return { flops: null, bytes: nElements(node.ne) * (nBytes(a!) / nElements(a!.ne)) + distinctBytes(b!) + nBytes(node) }
    case 'SET_ROWS': // of the result, only rows that are written; its type is not that of the rows
      return {
        flops: null,
        bytes: distinctBytes(a!) + distinctBytes(b!) + nElements(a!.ne) * (nBytes(node) / nElements(node.ne)),
      }
    default:
      return { flops: null, bytes: traffic(node) }
  }
}

/** What tells operations of one name apart: `q4_0[2048,8192] · f32[2048,512]` for products, else the shape of the result. */
export function shapeClass({ op, sources, ...result }: Node): string {
  const isProduct = op === 'MUL_MAT' || op === 'FLASH_ATTN_EXT' || op === 'OUT_PROD'
  return (isProduct ? sources.slice(0, 2) : [result]).map(shortly).join(' · ')
}

function traffic(node: Node): number {
  return node.sources.reduce((sum, source) => sum + distinctBytes(source), distinctBytes(node))
}

/** A dimension that is repeated by a stride of 0 is read once. */
function distinctBytes(t: Tensor): number {
  return t.ne.reduce((bytes, n, i) => (t.nb[i] === 0 ? bytes / n : bytes), nBytes(t))
}

function shortly({ type, ne }: Tensor): string {
  const rank = ne.findLastIndex((n) => n !== 1) + 1
  return `${typeName(type)}[${ne.slice(0, Math.max(rank, 1)).join(',')}]`
}
