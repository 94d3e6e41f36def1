/** The registry of attention methods: one line each. Help, request schema, docs, web form and conformance tests follow from it. */
import type { AnyMethod } from './method.ts'
import { drop } from './share/drop.ts'
import { lckv } from './share/lckv.ts'
import { sa } from './share/sa.ts'

export const METHODS: readonly AnyMethod[] = [
  lckv, //
  sa,
  drop,
]
