/** Writes the rows of new tokens into a cache. */
import { I32 } from '../../ggml/types.ts'
import type { Tensor } from '../../ggml/tensor.ts'
import { storeOf } from '../../kv/cache.ts'
import type { Store } from '../../kv/store.ts'
import type { Chunk } from '../chunk.ts'
import type { KeepPart } from '../method.ts'

/** `perHead`: every layer and head has rows of its own; otherwise all maps are alike and the first one serves. */
export function writer(chunk: Chunk, perHead: boolean): KeepPart['write'] {
  return ({ il }, rows) => {
    for (const [name, x] of Object.entries(rows))
      writeRows(chunk, { il, store: storeOf(chunk.layer(il).stores, name), perHead }, x)
  }
}

/** Writes f32[width, heads, n] to the rows of a chunk's new tokens in a store; one input of row indices serves all that agree. */
export function writeRows(
  chunk: Chunk,
  { il, store, perHead }: { readonly il: number; readonly store: Store; readonly perHead: boolean },
  x: Tensor,
): void {
  const { order, width } = store.layout
  const indices = chunk.once(`rows:${perHead ? il : ''}:${order}:${width}`, () => {
    const nMaps = perHead ? chunk.layer(il).v.layout.nHead : 1
    return chunk.input(I32, [chunk.nTokens * store.rowIndicesPerToken, nMaps], (data, { layers, rows }) =>
      store.rowIndices(data, perHead ? layers[il]!.rows : [rows]),
    )
  })
  store.write(chunk.g, x, indices)
}
