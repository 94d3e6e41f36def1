/** Where a run is, for whoever watches. */
export interface TrainProgress {
  /** Steps done, of `steps`. */
  readonly step: number
  readonly steps: number
  /** Of the last step, and of the last measurement on held-out text; null before the first. */
  readonly loss: number | null
  readonly heldOut: number | null
  readonly tokensPerSecond: number
  readonly secondsLeft: number
}

/** `step 120 of 1000, loss 2.913, held-out 3.012, 1240 tokens/s, 12 min left`. */
export function progressText({ step, steps, loss, heldOut, tokensPerSecond, secondsLeft }: TrainProgress): string {
  const parts = [`step ${step} of ${steps}`]
  if (loss !== null) parts.push(`loss ${loss.toFixed(3)}`)
  if (heldOut !== null) parts.push(`held-out ${heldOut.toFixed(3)}`)
  if (tokensPerSecond > 0) parts.push(`${Math.round(tokensPerSecond)} tokens/s`, `${duration(secondsLeft)} left`)
  return parts.join(', ')
}

function duration(seconds: number): string {
  if (seconds < 100) return `${Math.ceil(seconds)} s`
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`
  return `${(seconds / 3600).toFixed(1)} h`
}
