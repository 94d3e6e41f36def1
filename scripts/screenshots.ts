/**
 * Takes the pictures of the web page in docs/, of the built page and the bundled model. Needs Chromium (CHROMIUM_PATH).
 * Usage: npx tsx scripts/screenshots.ts
 */
import type { BrowserContextOptions, Page } from 'playwright-core'
import { load } from '../src/engine/model.ts'
import { startServer } from '../src/server/serve.ts'
import { dropFile, findChromium, launch, openPage } from '../test/support/browser.ts'
import { FACTS, textWithFacts } from '../test/support/facts.ts'

const CHARS_OF_TEXT = 4500

const server = await startServer({
  port: 0,
  webFolder: 'dist/web',
  load: async (signal) => (await load(undefined, { signal })).engine,
})
await server.ready
const chromium = findChromium()
if (!chromium) process.exit(1)
const browser = await launch(chromium)

await picture('docs/chat-desktop.png', { colorScheme: 'light', viewport: { width: 1280, height: 800 } }, async (page) => {
  await page.getByRole('button', { name: 'Settings' }).click()
})
await picture('docs/chat-phone.png', {
  colorScheme: 'dark',
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  hasTouch: true,
  isMobile: true,
})
await browser.close()
await server.close()

/** A conversation about a file, and a question that has been written but not yet sent. */
async function picture(path: string, options: BrowserContextOptions, prepare?: (page: Page) => Promise<void>): Promise<void> {
  const { page } = await openPage(browser, server.url, options)
  await page.locator('.figure').first().waitFor()
  await page.evaluate(`localStorage.setItem('kvasir.sampling', '{"temperature":0}')`)
  await page.reload()
  await dropFile(page, 'notes.txt', textWithFacts(CHARS_OF_TEXT))
  for (const { question } of FACTS) {
    await page.getByLabel('Your question').fill(question)
    await page.getByLabel('Your question').press('Enter')
    await page.locator('.answer[aria-busy=false]:last-of-type').waitFor()
  }
  await prepare?.(page)
  await page.getByLabel('Your question').fill('How many lamps are there?')
  await page.mouse.move(0, 0)
  await page.waitForTimeout(1000)
  await page.screenshot({ path })
  await page.context().close()
}
