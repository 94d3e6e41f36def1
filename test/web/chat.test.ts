/** The web page in a real browser, with our own server and the bundled model behind it. */
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Engine } from '../../src/engine/engine.ts'
import { type RunningServer, startServer } from '../../src/server/serve.ts'
import { buildPage, dropFile, findChromium, launch, openPage, type OpenedPage } from '../support/browser.ts'
import { FACTS, textWithFacts } from '../support/facts.ts'

const MODEL = 'models/kvasir-demo/kvasir-demo-f16.gguf'
const chromium = findChromium()

describe.skipIf(!chromium)('the web page with the bundled model', () => {
  let browser: Browser
  let built: Awaited<ReturnType<typeof buildPage>>
  let server: RunningServer
  let opened: OpenedPage
  let page: Page
  let letLoad: () => void

  beforeAll(async () => {
    built = await buildPage()
    browser = await launch(chromium!)
    const mayLoad = new Promise<void>((resolve) => (letLoad = resolve))
    const load = async (signal: AbortSignal) => {
      await mayLoad
      // One thread: two would wait for each other where other tests run beside.
      return Engine.load(MODEL, { signal, nThreads: 1 })
    }
    server = await startServer({ port: 0, webFolder: built.folder, load })
  })
  afterAll(async () => {
    letLoad?.()
    await browser?.close()
    await server?.close()
    await built?.remove()
  })
  beforeEach(async () => {
    opened = await openPage(browser, server.url)
    page = opened.page
  })
  afterEach(async () => {
    await page.context().close()
    if (opened.faults.length > 0) throw new Error(`the page complained: ${opened.faults.join('; ')}`)
  })

  const answer = () => page.locator('.answer').last()
  const isDone = () => page.locator('.answer[aria-busy=false]:last-of-type').waitFor()

  async function ask(question: string): Promise<void> {
    await page.getByLabel('Your question').fill(question)
    await page.getByLabel('Your question').press('Enter')
  }

  async function set(label: string, value: string): Promise<void> {
    if (!(await page.getByLabel(label).isVisible())) await page.getByRole('button', { name: 'Settings' }).click()
    await page.getByLabel(label).fill(value)
  }

  async function gauge(name: string): Promise<number> {
    const text = await (await fetch(`${server.url}/metrics`)).text()
    return Number(new RegExp(`^kvasir_${name}(?:\\{.*\\})? (\\S+)$`, 'm').exec(text)?.[1])
  }

  it('waits while the model loads, and then says what it talks to', async () => {
    await page.getByText('The model is loading').waitFor()
    letLoad()
    await page.getByText('0 / 4,096').waitFor()
    expect(await page.locator('.status').innerText()).toContain('kvasir-demo')
  })

  it('finds facts in a dropped file, in the first answer and in the next', async () => {
    await set('Temperature', '0')
    await dropFile(page, 'notes.txt', textWithFacts(3000))
    await expect.poll(() => page.locator('.chip').innerText()).toMatch(/KiB · [\d,]+\stokens/)
    for (const { question, answer: expected } of FACTS) {
      await ask(question)
      await isDone()
      expect(await answer().locator('.text').innerText()).toContain(expected)
      const cost = await answer().locator('footer .figures').innerText()
      expect(cost).toMatch(
        /^\d+\stokens\s· [\d.,]+\stok\/s\s· prompt [\d,]+\stokens.* in [\d.]+\sm?s\s· cache [\d.]+\s[KM]iB\s· dense$/,
      )
    }
    expect(await page.locator('.status').innerText()).toMatch(/context [\d,]+ \/ 4,096/)
  })

  it('shows the answer growing', async () => {
    await set('Max tokens', '300')
    await set('Seed', '1')
    const lengths = await page.locator('.paper').evaluateHandle((paper) => {
      const seen: number[] = []
      const { MutationObserver } = paper.ownerDocument.defaultView!
      const note = (): unknown => seen.push(paper.querySelector('.answer .text')?.textContent?.length ?? 0)
      new MutationObserver(note).observe(paper, { childList: true, subtree: true, characterData: true })
      return seen
    })
    await ask('Explain in detail how an iterator works, with several examples.')
    await isDone()
    const seen = [...new Set(await lengths.jsonValue())].filter((length) => length > 0)
    expect(seen.length).toBeGreaterThan(1) // the model may be done within a few frames
    expect(seen).toEqual(seen.toSorted((a, b) => a - b))
  })

  it('stops, and the server forgets the request', async () => {
    await dropFile(page, 'long.txt', textWithFacts(9000))
    await ask('Go on.')
    await expect.poll(() => gauge('num_requests_running')).toBe(1)
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Send' }).waitFor()
    await expect.poll(() => gauge('num_requests_running')).toBe(0)
    await expect.poll(() => gauge('kv_cache_bytes')).toBe(0)
  })

  it('says by how many tokens a file is too long', async () => {
    await dropFile(page, 'book.txt', textWithFacts(40_000))
    await page.getByText(/^About [\d,]+ tokens more than the context holds$/).waitFor()
    await ask('What?')
    await page.getByText(/^Too long by [\d,]+\stokens: the prompt has [\d,]+, the context holds 4,096\./).waitFor()
    expect(await page.locator('.composer .chip').innerText()).toContain('book.txt')
  })
})
