/**
 * A cache as bytes: magic and version, the length of the header, the header (JSON: layout and books), the bytes of the stores in
 * the order of the layout, and a SHA-256 of all of it. What is torn or of another shape is told, never used.
 */
import { createHash } from 'node:crypto'
import { KvasirError } from '../core/errors.ts'
import type { Json } from '../core/json.ts'
import type { CacheLayout } from './layout.ts'
import type { RowMapState } from './rows.ts'

/** Takes bytes in order; they may change once the promise is fulfilled. */
export type Sink = (bytes: Uint8Array) => Promise<void>
/** Fills `into` with the next bytes; false if there are not as many. */
export type Source = (into: Uint8Array) => Promise<boolean>

/** What the axes of attention note about a sequence, each its own. */
export interface Memo {
  share?: Json
  keep?: Json
  read?: Json
}

/** The books of a cache: everything but the bytes of its stores. */
export interface CacheState {
  readonly memo: Memo
  /** Heads of each store; methods may have given some back. */
  readonly heads: readonly number[]
  /** Row maps of the layers' KV heads; none where a layer reads another's. */
  readonly rows: readonly (readonly RowMapState[])[]
}

const MAGIC = Buffer.from('KVCACHE1')
const MOST_HEADER_BYTES = 2 ** 28

export async function saveCache(to: Sink, layout: CacheLayout, state: CacheState, used: readonly Uint8Array[]): Promise<void> {
  const hash = createHash('sha256')
  const header = Buffer.from(JSON.stringify({ layout, state }))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(header.length)
  for (const piece of [MAGIC, length, header, ...used]) {
    hash.update(piece)
    await to(piece)
  }
  await to(hash.digest())
}

/**
 * Reads what {@link saveCache} wrote: `become` takes the books over and gives the memory to be filled. What it gives holds nothing
 * of use if this rejects. Errors: `cache_invalid`.
 */
export async function restoreCache(
  from: Source,
  layout: CacheLayout,
  become: (state: CacheState) => readonly Uint8Array[],
): Promise<void> {
  const hash = createHash('sha256')
  const next = async (into: Uint8Array): Promise<Uint8Array> => {
    if (!(await from(into))) throw invalid('it ends too early')
    hash.update(into)
    return into
  }
  if (!MAGIC.equals(await next(Buffer.alloc(MAGIC.length)))) throw invalid('it does not begin as one')
  const length = Buffer.from(await next(Buffer.alloc(4))).readUInt32LE()
  if (length > MOST_HEADER_BYTES) throw invalid(`its header claims ${length} bytes`)
  const header = parse(Buffer.from(await next(Buffer.alloc(length))).toString())
  if (JSON.stringify(header.layout) !== JSON.stringify(layout))
    throw invalid('it is of another model, setting or type of keys and values')
  for (const piece of taken(become, header.state)) await next(piece)
  const sum = hash.digest()
  const written = Buffer.alloc(sum.length)
  if (!(await from(written)) || !sum.equals(written)) throw invalid('its checksum is wrong')
}

function parse(text: string): { readonly layout: CacheLayout; readonly state: CacheState } {
  try {
    return JSON.parse(text)
  } catch {
    throw invalid('its header is no JSON')
  }
}

/** Books that contradict themselves are found by whoever takes them over. */
function taken(become: (state: CacheState) => readonly Uint8Array[], state: CacheState): readonly Uint8Array[] {
  try {
    return become(state)
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error))
  }
}

function invalid(reason: string): KvasirError {
  return new KvasirError('cache_invalid', { reason })
}
