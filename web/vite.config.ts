import { fileURLToPath } from 'node:url'
import { preact } from '@preact/preset-vite'
import { defineConfig } from 'vite'

/** `npx vite web` while working on the page: a server on port 8080 answers these. */
const SERVER_PATHS = ['/v1', '/health', '/props', '/tokenize', '/metrics']

export default defineConfig(({ command }) => {
  // A build started by the tests inherits their NODE_ENV, which would give a page with Preact's development code.
  if (command === 'build') process.env['NODE_ENV'] = 'production'
  return {
    root: fileURLToPath(new URL('.', import.meta.url)),
    plugins: [preact()],
    server: { proxy: Object.fromEntries(SERVER_PATHS.map((path) => [path, 'http://127.0.0.1:8080'])) },
    build: {
      outDir: '../dist/web',
      emptyOutDir: true,
      // The first browsers with `light-dark()`; the content security policy allows neither inlined files nor scripts.
      target: ['es2022', 'chrome123', 'firefox120', 'safari17.5'],
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
    },
  }
})
