/** The registry of attention methods: one line each. Help, request schema, docs, web form and conformance tests follow from it. */
import { h2o } from './keep/h2o.ts'
import { streaming } from './keep/streaming.ts'
import type { AnyMethod } from './method.ts'
import { hip } from './read/hip/hip.ts'
import { sparq } from './read/sparq/sparq.ts'
import { chai } from './share/chai/chai.ts'
import { drop } from './share/drop.ts'
import { lckv } from './share/lckv.ts'
import { lisa } from './share/lisa/lisa.ts'
import { sa } from './share/sa.ts'

export const METHODS: readonly AnyMethod[] = [chai, lckv, lisa, sa, drop, streaming, h2o, hip, sparq]
