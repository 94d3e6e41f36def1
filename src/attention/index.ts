/** The registry of attention methods: one line each. Help, request schema, docs, web form and conformance tests follow from it. */
import { chai } from './chai.ts'
import { drop } from './drop.ts'
import { h2o } from './h2o.ts'
import { hip } from './hip.ts'
import { lckv } from './lckv.ts'
import { lisa } from './lisa.ts'
import type { AnyMethod } from './method.ts'
import { sa } from './sa.ts'
import { sparq } from './sparq.ts'
import { streaming } from './streaming.ts'

export const METHODS: readonly AnyMethod[] = [chai, lckv, lisa, sa, drop, streaming, h2o, hip, sparq]
