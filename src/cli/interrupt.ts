/** Ctrl-C while a model answers: the first stops the answer, a second one quits. */

export const EXIT_INTERRUPTED = 130 // 128 + SIGINT, as shells have it

export interface Interrupt extends Disposable {
  readonly signal: AbortSignal
}

export function onInterrupt(): Interrupt {
  const controller = new AbortController()
  const receive = () => {
    if (controller.signal.aborted) process.exit(EXIT_INTERRUPTED)
    controller.abort()
  }
  process.on('SIGINT', receive)
  return { signal: controller.signal, [Symbol.dispose]: () => void process.off('SIGINT', receive) }
}
