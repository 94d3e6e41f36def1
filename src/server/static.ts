/** The built web page: `index.html`, asked for anew each time, and assets whose names change with their content. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { type Context, Hono } from 'hono'

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
  '.woff2': 'font/woff2',
}

/** The page loads and asks nothing but its own server, and nobody may put it into a frame. */
const HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
}

/** Names as Vite writes them. Neither a slash nor a leading dot: no request leaves the folder. */
const FILE_NAME = /^[\w-][\w.-]*$/

const NOT_BUILT = 'The server is running, but its web page has not been built.\n\nIn the repository: npm run build\n'

/** Serves `folder`, where Vite built the page. What is not there is left to the routes behind. */
export function staticRoutes(folder: string): Hono {
  const routes = new Hono()
  routes.get('/', async (context) => {
    const page = await read(join(folder, 'index.html'))
    if (!page) return context.text(NOT_BUILT, 503, HEADERS)
    return send(context, page, { type: '.html', cache: 'no-cache' })
  })
  routes.get('/assets/:name', async (context, next) => {
    const name = context.req.param('name')
    const type = extname(name)
    const asset = FILE_NAME.test(name) && type in TYPES ? await read(join(folder, 'assets', name)) : null
    if (!asset) return await next()
    return send(context, asset, { type, cache: 'public, max-age=31536000, immutable' })
  })
  return routes
}

function send(context: Context, body: Uint8Array<ArrayBuffer>, { type, cache }: { type: string; cache: string }): Response {
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
  const headers = { ...HEADERS, 'cache-control': cache, etag }
  const known = context.req.header('if-none-match')?.split(/\s*,\s*/) ?? []
  if (known.some((tag) => tag.replace(/^W\//, '') === etag)) return context.body(null, 304, headers)
  return context.body(body, 200, { ...headers, 'content-type': TYPES[type]! })
}

async function read(path: string): Promise<Uint8Array<ArrayBuffer> | null> {
  try {
    return await readFile(path)
  } catch {
    return null
  }
}
