/** The part of the engine that the server uses, so that tests can bring another. */
import type { Engine } from '../engine/engine.ts'

export type ServedEngine = Omit<Engine, typeof Symbol.asyncDispose>
