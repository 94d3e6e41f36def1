/** Which rows a query sees, as a mask that is added to scores. */
import type { Visibility } from '../../core/shape.ts'
import { F16 } from '../../ggml/types.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { TILE } from '../../kv/layout.ts'
import type { Chunk } from '../chunk.ts'

/** -∞ in f16. */
export const MASKED = 0xfc00

/** The first and behind the last position that the query at `query` sees. The first of all sees itself even where none should. */
export function visiblePositions(visible: Visibility, query: number): readonly [first: number, end: number] {
  if (visible === 'strict') return [0, Math.max(query, 1)]
  return [visible === 'causal' ? 0 : Math.max(0, query + 1 - visible.window), query + 1]
}

/** The tile that holds the first row that a chunk's queries see, while row i is position i. */
export function firstTile(visible: Visibility, nTokens: number): number {
  const [first] = visiblePositions(visible, nTokens)
  return first - (first % TILE)
}

/**
 * f16[nKv - from, n]: 0 where a query may see the key of a row, -∞ where it may not or the row is unused. The rows in use must
 * lie together from 0 on; the new tokens take the rows behind them.
 */
export function rowMask(chunk: Chunk, visible: Visibility, from = 0): Tensor {
  const { nTokens, nKv } = chunk
  const width = nKv - from
  return chunk.once(`mask:${JSON.stringify(visible)}:${from}`, () =>
    chunk.input(F16, [width, nTokens], (mask, { rows }) => {
      for (let query = 0; query < nTokens; query++) {
        const [first, end] = visiblePositions(visible, rows.nRows + query)
        mask.fill(MASKED, query * width, (query + 1) * width)
        mask.fill(0, query * width + Math.max(0, first - from), query * width + end - from)
      }
    }),
  )
}
