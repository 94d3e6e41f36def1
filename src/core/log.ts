/** One logger: lines on stderr. Nothing else in `src/` writes to the console, except the command line's own output. */
export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

let level: LogLevel = 'warn'
let sink: (line: string) => void = (line) => process.stderr.write(`${line}\n`)

export function setLogLevel(next: LogLevel): void {
  level = next
}

/** Sends the lines elsewhere (tests, embedders); gives back the sink it replaces. */
export function setLogSink(next: (line: string) => void): (line: string) => void {
  const before = sink
  sink = next
  return before
}

function write(at: LogLevel, message: string): void {
  if (LOG_LEVELS.indexOf(at) <= LOG_LEVELS.indexOf(level)) sink(at === 'info' ? message : `${at}: ${message}`)
}

export const log: Record<Exclude<LogLevel, 'silent'>, (message: string) => void> = {
  error: (message) => write('error', message),
  warn: (message) => write('warn', message),
  info: (message) => write('info', message),
  debug: (message) => write('debug', message),
}
