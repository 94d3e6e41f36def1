/** The web page in a real browser, against a server that does what each test needs. The real server: chat.test.ts. */
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  buildPage,
  dropFile,
  findChromium,
  launch,
  openPage,
  type OpenedPage,
  paleTexts,
  partsBeyondWidth,
} from '../support/browser.ts'
import { KINDS } from '../support/attention-kinds.ts'
import { type FakeOpenAi, type FakeOptions, startFakeOpenAi } from '../support/fake-openai.ts'

const chromium = findChromium()
const LONG = Array.from({ length: 400 }, (_, index) => `word${index}`).join(' ')

describe.skipIf(!chromium)('the web page', () => {
  let browser: Browser
  let built: Awaited<ReturnType<typeof buildPage>>
  let fake: FakeOpenAi
  let opened: OpenedPage

  beforeAll(async () => {
    built = await buildPage()
    browser = await launch(chromium!)
  })
  afterAll(async () => {
    await browser?.close()
    await built?.remove()
  })
  afterEach(async () => {
    await opened.page.context().close()
    await fake[Symbol.asyncDispose]()
    if (opened.faults.length > 0) throw new Error(`the page complained: ${opened.faults.join('; ')}`)
  })

  async function open(options: Partial<FakeOptions> = {}, context: Parameters<typeof openPage>[2] = {}): Promise<Page> {
    fake = await startFakeOpenAi({ folder: built.folder, ...options })
    opened = await openPage(browser, fake.url, context)
    return opened.page
  }

  const input = (page: Page) => page.getByLabel('Your question')
  const answer = (page: Page) => page.locator('.answer').last()
  const isDone = (page: Page) => page.locator('.answer[aria-busy=false]:last-of-type').waitFor()

  async function ask(page: Page, question: string): Promise<void> {
    await input(page).fill(question)
    await input(page).press('Enter')
  }

  it('says which model answers and how long its context is', async () => {
    const page = await open({ nCtx: 8192 })
    await expect.poll(() => page.locator('.status').innerText()).toMatch(/fake[\s\S]*0 \/ 8,192/)
  })

  it('shows an answer while it is written, then what it cost', async () => {
    const page = await open({ answer: LONG, msPerToken: 4 })
    await ask(page, 'Tell me.')
    await answer(page).getByText('word5').waitFor()
    expect(await answer(page).getAttribute('aria-busy')).toBe('true')
    const early = (await answer(page).innerText()).length
    await expect.poll(async () => (await answer(page).innerText()).length).toBeGreaterThan(early + 100)
    expect(await answer(page).locator('footer').innerText()).toMatch(/tokens[\s\S]*tok\/s/)
    await isDone(page)
    const cost = (await answer(page).locator('footer').innerText()).replace(/\s/g, ' ')
    expect(cost).toMatch(/^400 tokens · 250 tok\/s · prompt 2 tokens in \d+ ms · cache 2\.00 MiB · dense/)
    expect(await answer(page).locator('.text').innerText()).toBe(LONG)
  })

  it('sends the whole conversation with the next question', async () => {
    const page = await open({ answer: 'Yes.' })
    await ask(page, 'One?')
    await isDone(page)
    await ask(page, 'Two?')
    await expect.poll(() => fake.chats.length).toBe(2)
    expect(fake.chats[1]!['messages']).toEqual([
      { role: 'user', content: 'One?' },
      { role: 'assistant', content: 'Yes.' },
      { role: 'user', content: 'Two?' },
    ])
    await isDone(page)
    await page.getByRole('button', { name: 'New chat' }).click()
    expect(await page.locator('.turn').count()).toBe(0)
  })

  it('breaks the line with Shift+Enter', async () => {
    const page = await open()
    await input(page).fill('One')
    await input(page).press('Shift+Enter')
    await input(page).pressSequentially('two')
    await input(page).press('Enter')
    await isDone(page)
    expect(fake.chats[0]!['messages']).toEqual([{ role: 'user', content: 'One\ntwo' }])
  })

  it.each([
    ['Escape', (page: Page) => page.keyboard.press('Escape')],
    ['the button', (page: Page) => page.getByRole('button', { name: 'Stop' }).click()],
  ])('stops at %s, keeps what was written, and lets the server go', async (_, stop) => {
    const page = await open({ answer: LONG, msPerToken: 10 })
    await ask(page, 'Tell me.')
    await answer(page).getByText('word9').waitFor()
    await stop(page)
    await isDone(page)
    expect(await answer(page).innerText()).toMatch(/word9[\s\S]*stopped/)
    await expect.poll(() => fake.left).toBe(1)
    await page.getByRole('button', { name: 'Send' }).waitFor()
  })

  it('shows how far a long prompt has been read, and gives the question back when it is stopped', async () => {
    const page = await open({ msPerChunk: 50, nCtx: 100_000 })
    await dropFile(page, 'long.txt', LONG.repeat(50))
    await ask(page, 'What?')
    const bar = page.getByRole('progressbar')
    await bar.waitFor()
    const early = Number(await bar.getAttribute('value'))
    await expect.poll(async () => Number(await bar.getAttribute('value'))).toBeGreaterThan(early)
    await page.keyboard.press('Escape')
    await expect.poll(() => input(page).inputValue()).toBe('What?')
    expect(await page.locator('.composer .chip').innerText()).toContain('long.txt')
  })

  it('puts a dropped file before the question, one line break between them', async () => {
    const page = await open()
    await dropFile(page, 'facts.txt', 'Nora keeps the lamp\nin the attic.\n')
    await expect.poll(() => page.locator('.chip').innerText()).toMatch(/facts\.txt\s+34\sB · 8\stokens/)
    await ask(page, 'Where is the lamp?')
    await isDone(page)
    const content = 'Nora keeps the lamp\nin the attic.\nWhere is the lamp?'
    expect(fake.chats[0]!['messages']).toEqual([{ role: 'user', content }])
    expect(await page.locator('.composer .chip').count()).toBe(0)
  })

  it('takes a pasted text, and lets it be removed', async () => {
    const page = await open()
    await page.getByRole('button', { name: 'Add text' }).click()
    await page.getByRole('dialog').getByLabel('Text').fill('A pasted text')
    await page.getByRole('dialog').getByRole('button', { name: 'Add', exact: true }).click()
    await page.locator('.chip').waitFor()
    await page.getByRole('button', { name: 'Remove A pasted text' }).click()
    expect(await page.locator('.chip').count()).toBe(0)
  })

  it('refuses a file that is not text', async () => {
    const page = await open()
    await dropFile(page, 'picture.png', [137, 80, 78, 71, 0, 255])
    expect(await page.getByRole('alert').innerText()).toBe('picture.png was not added: it is not a text file (UTF-8).')
  })

  it('asks again while the model is still loading', async () => {
    const page = await open({ busyTimes: 1 })
    await ask(page, 'Ready?')
    await answer(page).getByText('The model is still loading. Trying again.').waitFor()
    await isDone(page)
    expect(await answer(page).locator('.text').innerText()).toBe('Yes.')
  })

  it('says by how much a prompt is too long, and gives it back', async () => {
    const page = await open({ nCtx: 100 })
    await dropFile(page, 'long.txt', LONG)
    await page.getByText('About 300 tokens more than the context holds').waitFor()
    await ask(page, 'What?')
    await page.getByRole('alert').getByText('Too long by 301 tokens: the prompt has 401, the context holds 100.').waitFor()
    expect(await input(page).inputValue()).toBe('What?')
    expect(await page.locator('.composer .chip').innerText()).toContain('long.txt')
  })

  it('keeps the piece of an answer whose connection is lost, and makes it anew when asked', async () => {
    const page = await open({ answer: LONG, cutAfter: 20 })
    await ask(page, 'Tell me.')
    await page.getByRole('alert').getByText('The connection was lost').waitFor()
    expect(await answer(page).innerText()).toContain('word19')
    fake.options.cutAfter = Infinity
    await page.getByRole('button', { name: 'Try again' }).click()
    await answer(page).getByText('word399').waitFor()
    await isDone(page)
    expect(await page.getByRole('alert').count()).toBe(0)
  })

  it('keeps the question when the server is gone', async () => {
    const page = await open()
    await page.getByText('0 / 4,096').waitFor()
    await fake[Symbol.asyncDispose]()
    await ask(page, 'Are you there?')
    await page.getByRole('alert').getByText('The server cannot be reached.').waitFor()
    await page.locator('.status').getByText('The server does not answer').waitFor()
    expect(await input(page).inputValue()).toBe('Are you there?')
  })

  it('takes a double click for one', async () => {
    const page = await open({ answer: LONG, msPerToken: 2 })
    await input(page).fill('Tell me.')
    await page.getByRole('button', { name: 'Send' }).dblclick()
    await isDone(page)
    expect(await answer(page).innerText()).toContain('word399')
    expect(fake.chats.length).toBe(1)
  })

  it('asks for the key that the server wants', async () => {
    const page = await open({ key: 'secret' })
    await page.getByText('The server asks for an API key').waitFor()
    await ask(page, 'May I?')
    await page.getByRole('button', { name: 'Enter the key' }).click()
    await page.getByLabel('API key').fill('secret')
    await page.getByLabel('API key').press('Tab')
    await page.getByText('/ 4,096').first().waitFor()
    await page.getByRole('button', { name: 'Send' }).click()
    await isDone(page)
    expect(await input(page).inputValue()).toBe('')
  })

  it('sends the settings that are set, keeps them, and leaves the others to the server', async () => {
    const page = await open()
    await page.getByRole('button', { name: 'Settings' }).click()
    await expect.poll(() => page.getByLabel('Temperature').getAttribute('placeholder')).toBe('0.8')
    await page.getByLabel('Temperature').fill('0')
    await page.getByLabel('Top k').fill('1.5')
    await page.getByText('a whole number from 0').waitFor()
    await page.getByLabel('System prompt').fill('Be brief.')
    await page.reload()
    await ask(page, 'Hm?')
    await isDone(page)
    expect(fake.chats[0]).toEqual({
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Hm?' },
      ],
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
      return_progress: true,
    })
  })

  describe('the chooser of attention', () => {
    const openSettings = (page: Page) => page.getByRole('button', { name: 'Settings' }).click()

    it('sends the method and its options, keeps them, and can leave it to the server again', async () => {
      const page = await open()
      await openSettings(page)
      await page.getByLabel('Keep', { exact: true }).selectOption('streaming')
      await expect.poll(() => page.getByLabel('window').getAttribute('placeholder')).toBe('2000')
      await page.getByLabel('window').fill('64')
      await page.getByLabel('sink').fill('5000')
      await page.getByText('a whole number from 0 to 4096').waitFor()
      await page.reload()
      await ask(page, 'Hm?')
      await isDone(page)
      expect(fake.chats[0]!['attention']).toEqual([{ method: 'streaming', window: 64 }])
      expect(await page.getByLabel('window').inputValue()).toBe('64')
      await page.getByRole('button', { name: 'Leave it to the server' }).click()
      await ask(page, 'And now?')
      await expect.poll(() => fake.chats.length).toBe(2)
      expect(fake.chats[1]).not.toHaveProperty('attention')
      await isDone(page)
    })

    it('shows what the server does by itself, and can ask for dense instead', async () => {
      const page = await open({ defaultAttention: [{ method: 'streaming', window: 128 }] })
      await openSettings(page)
      await expect.poll(() => page.getByLabel('Keep', { exact: true }).inputValue()).toBe('streaming')
      expect(await page.getByLabel('window').inputValue()).toBe('128')
      await ask(page, 'By itself?')
      await isDone(page)
      await page.getByLabel('Keep', { exact: true }).selectOption('none')
      await page.getByText('Every query reads every key').waitFor()
      await ask(page, 'Dense?')
      await expect.poll(() => fake.chats.length).toBe(2)
      expect(fake.chats[0]).not.toHaveProperty('attention')
      expect(fake.chats[1]!['attention']).toEqual([])
      await isDone(page)
    })

    it('makes a field for every kind of option, and offers no pair that cannot work', async () => {
      const page = await open({ methods: KINDS })
      await openSettings(page)
      await page.getByLabel('Read', { exact: true }).selectOption('every')
      await page.getByLabel('twice').check()
      await page.getByLabel('from').selectOption('last')
      await page.getByLabel('size').fill('30%')
      await page.getByLabel('size').press('Tab')
      expect(await page.getByLabel('Keep', { exact: true }).locator('option', { hasText: 'hoard' }).isDisabled()).toBe(true)
      await ask(page, 'All of it?')
      await isDone(page)
      expect(fake.chats[0]!['attention']).toEqual([{ method: 'every', twice: true, from: 'last', size: '30%' }])
    })

    it('says what the server refuses, and gives the question back', async () => {
      const page = await open({ refusesAttention: true })
      await openSettings(page)
      await page.getByLabel('Keep', { exact: true }).selectOption('streaming')
      await ask(page, 'Hm?')
      await page.getByRole('alert').getByText('Attention: streaming cannot serve this model').waitFor()
      expect(await input(page).inputValue()).toBe('Hm?')
    })
  })

  it('shows markup as text, and code apart from it', async () => {
    const markup = '<img src=x onerror="document.title=1"> & <b>bold</b>'
    const page = await open({ answer: `${markup}\n\`\`\`ts\nlet a = "<i>"\n\`\`\`` })
    await ask(page, markup)
    await isDone(page)
    expect(await page.locator('.asked .text').innerText()).toBe(markup)
    expect(await answer(page).locator('.text').innerText()).toBe(markup)
    expect(await answer(page).locator('pre').innerText()).toBe('let a = "<i>"')
    expect(await page.title()).toBe('Kvasir')
  })

  it('works where the browser keeps nothing', async () => {
    fake = await startFakeOpenAi({ folder: built.folder })
    opened = await openPage(browser, 'about:blank')
    const { page } = opened
    await page.addInitScript(() => {
      Object.defineProperty(globalThis, 'localStorage', {
        get() {
          throw new Error('denied')
        },
      })
    })
    await page.goto(fake.url)
    await page.getByRole('button', { name: 'Settings' }).click()
    await page.getByLabel('Temperature').fill('0.5')
    await ask(page, 'Still there?')
    await isDone(page)
    expect(fake.chats[0]!['temperature']).toBe(0.5)
  })

  it('follows the end of an answer, unless the reader has scrolled up', async () => {
    const page = await open({ answer: LONG.replaceAll(' ', '\n'), msPerToken: 5 })
    const fromEnd = () => page.locator('.conversation').evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)
    await ask(page, 'Tell me.')
    await answer(page).getByText('word60').waitFor()
    expect(await fromEnd()).toBeLessThan(60)
    await page.locator('.conversation').hover()
    await page.mouse.wheel(0, -600)
    await expect.poll(fromEnd).toBeGreaterThan(400)
    await answer(page).getByText('word150').waitFor()
    expect(await fromEnd()).toBeGreaterThan(400)
  })

  describe.each(['light', 'dark'] as const)('on a screen 390 pixels wide, %s', (colorScheme) => {
    it('fits, and its texts stand out', async () => {
      const unbroken = `${'x'.repeat(300)}\n\`\`\`\n${'y'.repeat(300)}\n\`\`\``
      const page = await open(
        { answer: unbroken, methods: KINDS },
        { viewport: { width: 390, height: 844 }, colorScheme, hasTouch: true, isMobile: true },
      )
      const check = async (): Promise<void> => {
        expect(await partsBeyondWidth(page)).toEqual([])
        expect(await paleTexts(page)).toEqual([])
      }
      await page.getByText('0 / 4,096').waitFor()
      await check()
      await dropFile(page, `${'a-long-name'.repeat(10)}.txt`, LONG)
      await ask(page, unbroken)
      await isDone(page)
      await check()
      await page.getByRole('button', { name: 'Settings' }).tap()
      await check()
      await page.getByLabel('Read', { exact: true }).selectOption('every')
      await page.getByLabel('twice').waitFor()
      await check()
      await page.getByRole('button', { name: 'Close the settings' }).tap()
      await page.getByRole('button', { name: 'Add text' }).tap()
      await check()
    })
  })
})
