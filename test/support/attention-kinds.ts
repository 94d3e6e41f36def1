/** Methods of attention that exist for the web page only. */
import type { MethodInfo } from '../../src/attention/catalogue.ts'

/** Options of every kind, and a pair that cannot work together. */
export const KINDS: readonly MethodInfo[] = [
  {
    name: 'hoard',
    axis: 'keep',
    summary: 'Keeps all.',
    source: 'nowhere',
    cost: 'nothing',
    options: { type: 'object', properties: {} },
    defaults: {},
    example: 'hoard',
    composes_with: [],
    conflicts: { every: 'they quarrel' },
  },
  {
    name: 'every',
    axis: 'read',
    summary: 'Has every kind of option.',
    source: 'nowhere',
    cost: 'nothing',
    options: {
      type: 'object',
      properties: {
        k: { type: 'integer', minimum: 1, maximum: 9, default: 3, description: 'keys (tokens)' },
        twice: { type: 'boolean', default: false, description: 'do it again' },
        from: { enum: ['first', 'last'], default: 'first', description: 'where it begins' },
        size: { anyOf: [{ type: 'integer' }, { type: 'string' }], default: '20%', description: 'tokens, or a share of them' },
      },
    },
    defaults: { k: 3, twice: false, from: 'first', size: '20%' },
    example: 'every',
    composes_with: [],
    conflicts: { hoard: 'they quarrel' },
  },
]
