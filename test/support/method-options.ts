/** Options with which the conformance tests begin. */
import type { AnyMethod } from '../../src/attention/method.ts'

export interface MethodOptions {
  /** Options with which it equals dense attention up to `nTokens`. */
  exactFor(nTokens: number): Record<string, unknown>
  /** Options with which it has something to leave out at `nTokens` (some hundreds). */
  tightFor(nTokens: number): Record<string, unknown>
}

export const OPTIONS: Readonly<Record<string, MethodOptions>> = {
  chai: { exactFor: () => ({ ratio: 1 }), tightFor: () => ({ ratio: 0.5 }) },
  lckv: { exactFor: (n) => ({ iterations: Math.min(n, 1024) }), tightFor: () => ({ iterations: 2 }) },
  /** Adapters that test/attention/lisa.test.ts makes. */
  lisa: { exactFor: () => ({ adapter: 'whole' }), tightFor: () => ({ adapter: 'some' }) },
  sa: { exactFor: () => ({ layers: 'none' }), tightFor: () => ({ layers: '2-3' }) },
  drop: { exactFor: () => ({ layers: 'none' }), tightFor: () => ({ layers: '1/3' }) },
  streaming: { exactFor: (window) => ({ window }), tightFor: (n) => ({ sink: 3, window: Math.ceil(n / 5) }) },
  h2o: {
    exactFor: (budget) => ({ budget }),
    tightFor: (n) => ({ heavy: Math.floor(n / 8), recent: Math.floor(n / 6) }),
  },
  hip: {
    exactFor: (k) => ({ dense_layers: 0, k, block_k: 4, window: 8, sink: 0 }),
    tightFor: () => ({ dense_layers: 0, k: 48, window: 24, sink: 4, block_q: 1, stride_q: 1, refresh: 4 }),
  },
  sparq: {
    exactFor: (k) => ({ r: 8, k, from: 0 }),
    tightFor: (n) => ({ r: 8, k: Math.floor(n / 6), from: 0 }),
  },
}

export function optionsFor({ name }: AnyMethod, options = OPTIONS): MethodOptions {
  const found = options[name]
  if (found === undefined) throw new Error(`test/support/method-options.ts has no options of ${name}`)
  return found
}
