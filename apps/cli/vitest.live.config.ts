import { defineConfig } from 'vitest/config';

/** The tests that need a real QEMU: `npm run test:live`. */
export default defineConfig({
  test: {
    include: ['test/live/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 120_000,
    reporters: ['default', 'json'],
    outputFile: { json: '.vitest/live.json' },
  },
});
