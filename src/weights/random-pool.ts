/**
 * Random weights by the gigabyte: a few million normal numbers are drawn and converted once per type, and every tensor is
 * put together from stretches of them, each from a place drawn anew. So no two rows are alike, while the cost is that of copying.
 */
import { randomBits } from '../core/random.ts'
import { F32, rowBytes, typeInfo } from '../ggml/types.ts'
import { convertRows } from './convert.ts'

/** Standard deviation, as models are commonly initialised. */
export const WEIGHT_STD = 0.02
const POOL_ELEMENTS = 1 << 22
/** Elements per stretch: a block of the largest block size. */
const STRETCH = 256

export class RandomPool {
  readonly #bits: () => number
  readonly #normals = new Float32Array(POOL_ELEMENTS)
  readonly #converted = new Map<number, Buffer>()

  constructor(seed: number, std: number = WEIGHT_STD) {
    this.#bits = randomBits(seed)
    for (let i = 0; i < POOL_ELEMENTS; i += 2) {
      // Box and Muller: two uniform numbers in (0, 1) make two normal ones.
      const radius = std * Math.sqrt(-2 * Math.log((this.#bits() + 0.5) / 2 ** 32))
      const angle = (2 * Math.PI * this.#bits()) / 2 ** 32
      this.#normals[i] = radius * Math.cos(angle)
      this.#normals[i + 1] = radius * Math.sin(angle)
    }
  }

  /** The next `nElements` (whole blocks) of a tensor of `type`, at most {@link Buffer} `into` holds; gives the bytes filled. */
  fill(into: Buffer, type: number, nElements: number): Buffer {
    const pool = this.#as(type)
    const { blockSize, blockBytes } = typeInfo(type)!
    const nPlaces = (POOL_ELEMENTS - STRETCH) / blockSize + 1
    const stretchBytes = (STRETCH / blockSize) * blockBytes
    const nBytes = (nElements / blockSize) * blockBytes
    for (let at = 0; at < nBytes; at += stretchBytes) {
      const from = Math.floor((this.#bits() / 2 ** 32) * nPlaces) * blockBytes
      pool.copy(into, at, from, from + Math.min(stretchBytes, nBytes - at))
    }
    return into.subarray(0, nBytes)
  }

  #as(type: number): Buffer {
    let pool = this.#converted.get(type)
    if (pool === undefined) {
      const floats = new Uint8Array(this.#normals.buffer)
      const rows = { nRows: POOL_ELEMENTS / STRETCH, rowLength: STRETCH }
      const bytes = type === F32 ? floats : convertRows(floats, { from: F32, to: type, ...rows })
      pool = Buffer.from(bytes.buffer, bytes.byteOffset, rows.nRows * rowBytes(type, STRETCH))
      this.#converted.set(type, pool)
    }
    return pool
  }
}
