/** The curves of a calibration as a page that needs nothing else: error against number of clusters, for each layer. */
import type { ChaiReport } from './chai-report.ts'
import { escapeMarkup } from './curve.ts'

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [260, 180, 40, 40, 24, 28]

export function chaiPage(report: ChaiReport): string {
  const { model, clusters, ratio, samples, lossSamples, nTokens, rule } = report
  const saved = (100 * (1 - ratio)) / 2
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>CHAI: ${escapeMarkup(model)}</title>
<style>
body { font: 14px sans-serif; margin: 2em; color: #222; background: #fff }
main { display: flex; flex-wrap: wrap; gap: 8px }
</style>
<h1>CHAI: clusters of heads in ${escapeMarkup(model)}</h1>
<p>Against the number of clusters: <b style="color:#1f5fa8">what k-means leaves of the squared attention probabilities</b> (left
scale), with its elbow <b style="color:#888">○</b>, over ${samples} windows of ${nTokens} tokens${
    lossSamples === 0
      ? ''
      : `; and <b style="color:#e08a1e">what that layer alone costs, clustered</b> (right scale: nats of KL to dense per token), over
${lossSamples} windows`
  }. Chosen <b style="color:#c0392b">●</b> by the rule: ${escapeMarkup(rule)}.</p>
<p>Chosen: ${clusters.join(', ')} of ${report.nHeadKv} heads each; ${(100 * ratio).toFixed(1)}% of keys stay, the cache is
${saved.toFixed(1)}% smaller.</p>
<main>
${clusters.map((_, il) => layerSvg(report, il)).join('\n')}
</main></html>
`
}

/** One layer's curves, with the elbow and the chosen number marked. */
function layerSvg({ inertia, losses, clusters, elbows, nHeadKv: G }: ChaiReport, il: number): string {
  const [ours, loss] = [inertia[il]!, losses?.[il]]
  const [most, mostLoss] = [inertia, losses ?? []].map((curves) => Math.max(...curves.flat(), 1e-9)) as [number, number]
  const x = (n: number) => (LEFT + ((WIDTH - LEFT - RIGHT) * (n - 1)) / Math.max(1, G - 1)).toFixed(1)
  const y = (part: number) => (TOP + (HEIGHT - TOP - BOTTOM) * (1 - part)).toFixed(1)
  const line = (curve: readonly number[], most: number, colour: string) =>
    `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${curve.map((v, i) => `${x(i + 1)},${y(v / most)}`).join(' ')}"/>`
  const mark = (n: number, look: string) => `<circle cx="${x(n)}" cy="${y(ours[n - 1]! / most)}" ${look}/>`
  const [chosen, elbow] = [clusters[il]!, elbows[il]!]
  const right = `x="${WIDTH - RIGHT + 4}" fill="#e08a1e"`
  return [
    `<svg width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11">`,
    `<title>${ours.map((v, i) => `${i + 1}: ${v.toFixed(4)}${loss ? `, ${loss[i]!.toFixed(4)} nats` : ''}`).join('\n')}</title>`,
    `<text x="${LEFT}" y="14" font-size="12">layer ${il}: ${chosen} of ${G}</text>`,
    `<path d="M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}V${TOP}" stroke="#888" fill="none"/>`,
    ...[0, 1].map((part) => `<text x="${LEFT - 4}" y="${y(part)}" dy="4" text-anchor="end">${(part * most).toFixed(2)}</text>`),
    ...(loss ? [0, 1].map((part) => `<text ${right} y="${y(part)}" dy="4">${(part * mostLoss).toFixed(2)}</text>`) : []),
    ...[1, G].map((n) => `<text x="${x(n)}" y="${HEIGHT - BOTTOM + 14}" text-anchor="middle">${n}</text>`),
    line(ours, most, '#1f5fa8'),
    ...(loss ? [line(loss, mostLoss, '#e08a1e')] : []),
    mark(elbow, 'r="6" fill="none" stroke="#888"'),
    mark(chosen, 'r="4" fill="#c0392b"'),
    '</svg>',
  ].join('\n')
}
