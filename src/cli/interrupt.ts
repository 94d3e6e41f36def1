/** Ctrl-C while something runs: the first stops it, a second one quits. */

export const EXIT_INTERRUPTED = 130 // 128 + SIGINT, as shells have it

export interface Interrupt extends Disposable {
  /** Aborted by the first. */
  readonly signal: AbortSignal
}

/** Listens to SIGINT, and to `others`, until it is disposed. */
export function onInterrupt(...others: NodeJS.Signals[]): Interrupt {
  const controller = new AbortController()
  const signals: NodeJS.Signals[] = ['SIGINT', ...others]
  const receive = () => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED)
    controller.abort()
  }
  for (const signal of signals) process.on(signal, receive)
  const release = () => {
    for (const signal of signals) process.off(signal, receive)
  }
  return { signal: controller.signal, [Symbol.dispose]: release }
}
