/**
 * Which layer's keys and values each layer reads, as LCKV writes it: `0_20_20_21`, entry i for layer i; `20x20` (or `20×20`) is
 * twenty entries of 20. Entries above their own number are condensed layers: they read a layer that comes after them.
 */

/** How the layers of a model share keys and values. */
export interface LayerSharing {
  /** Entry i is the layer whose keys and values layer i reads; a layer has its own if it reads itself. */
  readonly reads: readonly number[]
  /** In no layer does a token see its own key; otherwise that is so in condensed layers only. */
  readonly forceNodiag: boolean
  /** Passes over the condensed layers with which the model was trained to read prompts: m without and b with gradients. */
  readonly forwardPasses: number
  readonly backwardPasses: number
}

/** What configs mean that do not say. */
export const SHARING_DEFAULTS = { forceNodiag: false, forwardPasses: 7, backwardPasses: 2 } as const

const MOST_LAYERS = 1024

/** The entries for a model of `nLayer` layers, or why they cannot be, as a text. */
export function parseLayerTypes(text: string, nLayer: number): readonly number[] | string {
  const reads: number[] = []
  for (const entry of text.trim().split('_')) {
    const [, layer, window, count = '1'] = /^(\d{1,4})(s?)(?:[x×](\d{1,4}))?$/.exec(entry) ?? []
    if (layer === undefined) return `'${entry.slice(0, 20)}' is no layer`
    if (window === 's') return `'${entry}' has a sliding window, which is not supported`
    for (let i = 0; i < Number(count) && reads.length <= MOST_LAYERS; i++) reads.push(Number(layer))
  }
  if (reads.length !== nLayer) return `it has ${reads.length} entries for ${nLayer} layers`
  const wrong = reads.findIndex((target) => target >= nLayer || reads[target] !== target)
  if (wrong === -1) return reads
  const target = reads[wrong]!
  return target >= nLayer
    ? `layer ${wrong} reads layer ${target} of ${nLayer}`
    : `layer ${wrong} reads layer ${target}, which reads layer ${reads[target]}: a layer that is read must read itself`
}

/** In the shortest spelling: `0_20x20_21`. */
export function writeLayerTypes(reads: readonly number[]): string {
  const runs: { layer: number; n: number }[] = []
  for (const layer of reads) {
    const last = runs.at(-1)
    if (last?.layer === layer) last.n++
    else runs.push({ layer, n: 1 })
  }
  return runs.map(({ layer, n }) => (n === 1 ? `${layer}` : `${layer}x${n}`)).join('_')
}
