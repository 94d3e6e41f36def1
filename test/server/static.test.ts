import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Hono } from 'hono'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { staticRoutes } from '../../src/server/static.ts'

let root: string
let app: Hono

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-static-'))
  await mkdir(join(root, 'web', 'assets'), { recursive: true })
  await writeFile(join(root, 'secret.js'), 'secret')
  await writeFile(join(root, 'web', 'index.html'), '<!doctype html><title>Kvasir</title>')
  await writeFile(join(root, 'web', 'assets', 'index-A1.js'), 'run()')
  await writeFile(join(root, 'web', 'assets', '.hidden.js'), 'secret')
  await writeFile(join(root, 'web', 'assets', 'notes.txt'), 'secret')
  app = new Hono().route('/', staticRoutes(join(root, 'web')))
  app.notFound((c) => c.text('nothing here', 404))
})
afterAll(() => rm(root, { recursive: true, force: true }))

describe('the routes of the web page', () => {
  it('serve the page, to be asked for anew each time, with a policy that forbids everything foreign', async () => {
    const response = await app.request('/')
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('no-cache')
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(await response.text()).toContain('<title>Kvasir</title>')
  })

  it('answer 304 to a browser that has the page already', async () => {
    const etag = (await app.request('/')).headers.get('etag')!
    const again = await app.request('/', { headers: { 'if-none-match': `"other", W/${etag}` } })
    expect([again.status, await again.text()]).toEqual([304, ''])
    expect((await app.request('/', { headers: { 'if-none-match': '"other"' } })).status).toBe(200)
  })

  it('serve assets for good', async () => {
    const response = await app.request('/assets/index-A1.js')
    expect(response.headers.get('content-type')).toBe('text/javascript; charset=utf-8')
    expect(response.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    expect(await response.text()).toBe('run()')
  })

  it('answer HEAD without a body', async () => {
    const response = await app.request('/', { method: 'HEAD' })
    expect([response.status, await response.text()]).toEqual([200, ''])
  })

  it.each([
    '/assets/missing.js',
    '/assets/../../secret.js',
    '/assets/..%2f..%2fsecret.js',
    '/assets/%2e%2e/%2e%2e/secret.js',
    '/assets/..%5c..%5csecret.js',
    '/assets/.hidden.js',
    '/assets/notes.txt',
    '/assets/index-A1.js%00.js',
    '/assets/',
    '/index.html/../../secret.js',
  ])('leave %s to others', async (path) => {
    const response = await app.request(new Request(`http://localhost${path}`))
    expect([response.status, await response.text()]).toEqual([404, 'nothing here'])
  })

  it('say how to build the page where it is missing', async () => {
    const response = await staticRoutes(join(root, 'nowhere')).request('/')
    expect(response.status).toBe(503)
    expect(await response.text()).toContain('npm run build')
  })
})
