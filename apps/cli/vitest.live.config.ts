import { defineConfig } from 'vitest/config';

/** The tests that need a real QEMU, and the slowest of the others: `npm run test:live`. */
export default defineConfig({
  test: {
    include: ['test/{live,slow}/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 120_000,
    reporters: ['default', 'json'],
    outputFile: { json: '.vitest/live.json' },
  },
});
