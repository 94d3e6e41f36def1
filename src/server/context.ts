/** What every handler is given. */
import type { Context } from 'hono'
import type { Metrics } from './metrics.ts'
import type { ServedEngine } from './served-engine.ts'

export interface Variables {
  engine: ServedEngine
  metrics: Metrics
  /** Aborted when the server stops. */
  closing: AbortSignal
  /** Milliseconds of silence after which a stream says that it is alive. */
  pingMs: number
  /** Largest request body in bytes. */
  maxBodyBytes: number
}

export interface AppEnv {
  Variables: Variables
}
export type AppContext = Context<AppEnv>
export type AppHandler = (c: AppContext) => Response | Promise<Response>
