import { defineConfig } from 'vitest/config';

/**
 * The tests that need a real QEMU or a browser, and the slowest of the others: `npm run test:live`. One
 * file at a time.
 */
export default defineConfig({
  test: {
    include: ['test/{live,slow}/**/*.test.ts'],
    fileParallelism: false,
    passWithNoTests: true,
    testTimeout: 120_000,
    reporters: ['default', 'json'],
    outputFile: { json: '.vitest/live.json' },
  },
});
