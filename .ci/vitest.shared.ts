import { defaultExclude, defineConfig } from 'vitest/config';

/** Every package's `vitest.config.ts` is this; a package that needs more merges into it. */
export const shared = defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // What needs a real QEMU or a browser, or long, is another suite: vitest.live.ts.
    exclude: [...defaultExclude, 'test/{live,slow}/**'],
    passWithNoTests: true,
    // Files share a thread and its modules: packages keep no state in modules, and starting a process
    // for each file takes longer than most files.
    pool: 'threads',
    isolate: false,
    // Several packages test at once on small machines.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: ['default', 'json'],
    outputFile: { json: '.vitest/report.json' },
  },
});
