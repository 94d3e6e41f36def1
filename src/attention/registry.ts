/** The registry of attention methods: one line each. Help, request schema, docs, web form and conformance tests follow from it. */
import { h2o } from './keep/h2o.ts'
import { streaming } from './keep/streaming.ts'
import type { AnyMethod } from './method.ts'
import { hip } from './read/hip/hip.ts'
import { sparq } from './read/sparq/sparq.ts'

export const METHODS: readonly AnyMethod[] = [streaming, h2o, hip, sparq]
