/** The learning rate over a run: a straight line up, then half a cosine down. */
export interface Schedule {
  readonly steps: number
  /** Steps until the rate is reached. */
  readonly warmup: number
  readonly rate: number
  /** The rate of the last step. */
  readonly finalRate: number
}

/** The rate of step `step`, counted from 0. */
export function learningRate(step: number, { steps, warmup, rate, finalRate }: Schedule): number {
  if (step < warmup) return (rate * (step + 1)) / warmup
  const part = Math.min(1, (step - warmup) / Math.max(1, steps - 1 - warmup))
  return finalRate + ((rate - finalRate) * (1 + Math.cos(Math.PI * part))) / 2
}
