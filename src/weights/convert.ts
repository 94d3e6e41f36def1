/** Rows of weights from one type to another: floats of any width in, floats or quantised blocks out. */
import { ggml } from '../ggml/library.ts'
import { BF16, F16, F32, rowBytes, typeInfo, typeName } from '../ggml/types.ts'

export interface RowConversion {
  /** f32, f16 or bf16. */
  readonly from: number
  /** Any type that is `quantizable` (see ggml/types.ts); the row must be whole blocks of it. */
  readonly to: number
  readonly nRows: number
  readonly rowLength: number
}

/** Elements converted at once: the scratch memory is four times as many bytes. */
const SLAB = 1 << 20

/** True if {@link convertRows} can do it. */
export function canConvert(from: number, to: number, rowLength: number): boolean {
  const info = typeInfo(to)
  return [F32, F16, BF16].includes(from) && info !== undefined && info.quantizable && rowLength % info.blockSize === 0
}

/** `source` holds `nRows` rows of `from`, without gaps. Blocks until done: hand large matrices over in parts. */
export function convertRows(source: Uint8Array, { from, to, nRows, rowLength }: RowConversion): Uint8Array {
  const sourceRow = rowBytes(from, rowLength)
  if (!canConvert(from, to, rowLength) || source.length !== nRows * sourceRow)
    throw new RangeError(`${source.length} bytes as ${nRows}×${rowLength} ${typeName(from)} do not become ${typeName(to)}`)
  if (from === to) return source.slice()
  const targetRow = rowBytes(to, rowLength)
  const target = new Uint8Array(nRows * targetRow)
  const slabRows = Math.max(1, Math.floor(SLAB / rowLength))
  const floats = from === F32 ? null : new Float32Array(Math.min(slabRows, nRows) * rowLength)
  for (let row = 0; row < nRows; row += slabRows) {
    const rows = Math.min(slabRows, nRows - row)
    const piece = source.subarray(row * sourceRow, (row + rows) * sourceRow)
    if (floats && from === F16) ggml().ggml_fp16_to_fp32_row(piece, floats, rows * rowLength)
    if (floats && from === BF16) ggml().ggml_bf16_to_fp32_row(piece, floats, rows * rowLength)
    const into = target.subarray(row * targetRow, (row + rows) * targetRow)
    ggml().ggml_quantize_chunk(to, floats ?? piece, into, 0, rows, rowLength, null)
  }
  return target
}
