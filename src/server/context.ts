/** What every handler is given. */
import type { Context } from 'hono'
import type { Engine } from '../engine/engine.ts'
import type { Metrics } from './metrics.ts'

/** The part of the engine that the server uses, so that tests can bring another. */
export type ServedEngine = Omit<Engine, typeof Symbol.asyncDispose>

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
