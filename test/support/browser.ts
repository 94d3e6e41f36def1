/** A real browser for tests of the web page, and the page built for them. */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { build } from 'vite'

const PLACES = [
  process.env['CHROMIUM_PATH'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

/** Null where no browser is installed; says so, because the tests are skipped then. */
export function findChromium(): string | null {
  const path = PLACES.find((place) => place && existsSync(place)) ?? null
  if (!path) process.stderr.write('tests of the web page are skipped: no Chromium found (set CHROMIUM_PATH)\n')
  return path
}

/** No sandbox, because containers run as root; nothing but the page itself may use the network. */
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

export function launch(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath, args: ARGS })
}

/** Builds the page into a folder of its own. */
export async function buildPage(): Promise<{ readonly folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'kvasir-web-'))
  const before = process.env['NODE_ENV']
  await build({ configFile: 'web/vite.config.ts', logLevel: 'error', build: { outDir: folder } })
  process.env['NODE_ENV'] = before
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) }
}

export interface OpenedPage {
  readonly page: Page
  /** Uncaught errors and violations of the page's own security policy. */
  readonly faults: string[]
}

export async function openPage(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<OpenedPage> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(30_000)
  const faults: string[] = []
  page.on('pageerror', (error) => faults.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) faults.push(message.text())
  })
  await page.goto(url)
  return { page, faults }
}

// What runs in the page is given its window through an element: the tests are checked without the browser's own types.

/** Drops a file onto the page as a desktop does. */
export async function dropFile(page: Page, name: string, content: string | number[]): Promise<void> {
  const dataTransfer = await page.locator('body').evaluateHandle(
    (body, { name, content }) => {
      const { DataTransfer, File } = body.ownerDocument.defaultView!
      const transfer = new DataTransfer()
      transfer.items.add(new File([typeof content === 'string' ? content : new Uint8Array(content)], name))
      return transfer
    },
    { name, content },
  )
  await page.dispatchEvent('body', 'dragover', { dataTransfer })
  await page.dispatchEvent('body', 'drop', { dataTransfer })
}

/** What sticks out of the window's width: tags and classes. Code and what is within it may be wider, for it scrolls by itself. */
export function partsBeyondWidth(page: Page): Promise<string[]> {
  return page.locator('body').evaluate((body) => {
    const width = body.ownerDocument.documentElement.clientWidth
    const parts = [body.ownerDocument.documentElement, ...body.querySelectorAll('*:not(pre *)')]
    return parts
      .filter(
        (part) =>
          part.getBoundingClientRect().right > width + 0.5 ||
          part.getBoundingClientRect().left < -0.5 ||
          (part === parts[0] && part.scrollWidth > width),
      )
      .map((part) => `${part.tagName}.${part.className}`)
  })
}

/** Texts whose colour stands out too little from what is behind it (WCAG 2: contrast below 4.5), with their contrast. */
export function paleTexts(page: Page): Promise<string[]> {
  return page.locator('body').evaluate((body) => {
    const { getComputedStyle } = body.ownerDocument.defaultView!
    const channels = (css: string): number[] => (css.match(/[\d.]+/g) ?? []).map(Number)
    const linear = (value: number): number => (value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4)
    const luminance = ([r, g, b]: number[]): number => 0.2126 * linear(r!) + 0.7152 * linear(g!) + 0.0722 * linear(b!)
    const ground = (start: typeof body): number[] => {
      // Three channels and no fourth: opaque.
      for (let part = start; part; part = part.parentElement!) {
        const found = channels(getComputedStyle(part).backgroundColor)
        if (found.length === 3) return found
      }
      return channels(getComputedStyle(body.parentElement!).backgroundColor)
    }
    const pale: string[] = []
    for (const part of body.querySelectorAll<typeof body>('*')) {
      const hasText = [...part.childNodes].some((node) => node.nodeType === 3 && node.nodeValue!.trim() !== '')
      if (!hasText || !part.checkVisibility()) continue
      const [one, other] = [luminance(channels(getComputedStyle(part).color)), luminance(ground(part))]
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
      if (contrast < 4.5) pale.push(`${part.textContent!.trim().slice(0, 40)}: ${contrast.toFixed(2)}`)
    }
    return pale
  })
}
