/** The curves of a calibration as a page that needs nothing else: error against number of clusters, for each layer. */
import type { ChaiReport } from './chai.ts'

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [240, 180, 40, 12, 24, 28]

export function chaiPage(report: ChaiReport): string {
  const { model, clusters, ratio, samples, nTokens, rule } = report
  const saved = (100 * (1 - ratio)) / 2
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>CHAI: ${escape(model)}</title>
<style>
body { font: 14px sans-serif; margin: 2em; color: #222; background: #fff }
main { display: flex; flex-wrap: wrap; gap: 8px }
</style>
<h1>CHAI: clusters of heads in ${escape(model)}</h1>
<p>Share of the squared attention probabilities that clusters leave unexplained, against their number; ${samples} windows of
${nTokens} tokens. Rule: ${escape(rule)}. <span style="color:#c0392b">●</span> chosen, <span style="color:#888">○</span> elbow.</p>
<p>Chosen: ${clusters.join(', ')} of ${report.nHeadKv} heads each; ${(100 * ratio).toFixed(1)}% of keys stay, the cache is
${saved.toFixed(1)}% smaller.</p>
<main>
${clusters.map((_, il) => layerSvg(report, il)).join('\n')}
</main></html>
`
}

/** One layer's curve, with the elbow and the chosen number marked. */
function layerSvg({ errors, clusters, elbows, nHeadKv: G }: ChaiReport, il: number): string {
  const curve = errors[il]!
  const most = Math.max(...errors.map((one) => one[0]!), 1e-9)
  const x = (n: number) => (LEFT + ((WIDTH - LEFT - RIGHT) * (n - 1)) / Math.max(1, G - 1)).toFixed(1)
  const y = (error: number) => (TOP + (HEIGHT - TOP - BOTTOM) * (1 - error / most)).toFixed(1)
  const at = (n: number) => `cx="${x(n)}" cy="${y(curve[n - 1]!)}"`
  const [chosen, elbow] = [clusters[il]!, elbows[il]!]
  return [
    `<svg width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11">`,
    `<title>${curve.map((error, i) => `${i + 1}: ${error.toFixed(4)}`).join('\n')}</title>`,
    `<text x="${LEFT}" y="14" font-size="12">layer ${il}: ${chosen} of ${G}, error ${curve[chosen - 1]!.toFixed(3)}</text>`,
    `<path d="M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}" stroke="#888" fill="none"/>`,
    `<text x="${LEFT - 4}" y="${y(most)}" dy="4" text-anchor="end">${most.toFixed(2)}</text>`,
    `<text x="${LEFT - 4}" y="${y(0)}" dy="4" text-anchor="end">0</text>`,
    ...[1, G].map((n) => `<text x="${x(n)}" y="${HEIGHT - BOTTOM + 14}" text-anchor="middle">${n}</text>`),
    `<polyline fill="none" stroke="#1f5fa8" stroke-width="2" points="${curve.map((error, i) => `${x(i + 1)},${y(error)}`).join(' ')}"/>`,
    `<circle ${at(elbow)} r="6" fill="none" stroke="#888"/>`,
    `<circle ${at(chosen)} r="4" fill="#c0392b"/>`,
    '</svg>',
  ].join('\n')
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}
