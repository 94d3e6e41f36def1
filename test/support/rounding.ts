/** Vectors as ggml's types keep them. */

/** To 11 significant bits. */
export function roundToF16(vector: Float64Array): Float64Array {
  return vector.map((value) => {
    const unit = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value) || 1))) - 10)
    return Math.round(value / unit) * unit
  })
}

/** As q8_0 has it: a scale of f16 for each 32 whole numbers. */
export function roundToQ8(vector: Float64Array): Float64Array {
  const rounded = new Float64Array(vector.length)
  for (let at = 0; at < vector.length; at += 32) {
    const most = vector.subarray(at, at + 32).reduce((max, x) => Math.max(max, Math.abs(x)), 0)
    const [scale] = roundToF16(Float64Array.of(most / 127))
    for (let i = at; i < at + 32; i++) rounded[i] = scale! * Math.round((vector[i]! * 127) / most)
  }
  return rounded
}
