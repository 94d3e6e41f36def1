import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Two busy processes disturb each other: compute is threaded, tests are not.
    maxWorkers: 2,
  },
})
