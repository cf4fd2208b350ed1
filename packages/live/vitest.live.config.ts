import { defineConfig } from 'vitest/config';

/** The tests that need a real QEMU: `npm run test:live`. One machine at a time. */
export default defineConfig({
  test: {
    include: ['test/live/**/*.test.ts'],
    fileParallelism: false,
    testTimeout: 60_000,
    reporters: ['default', 'json'],
    outputFile: { json: '.vitest/live.json' },
  },
});
