import { defineConfig } from 'tsup';

/**
 * The one place that knows how a package becomes JavaScript.
 * `tsc` writes the declarations into the same `dist`, possibly at the same time: nothing is cleaned
 * where there are any.
 */
export const build = (entry: string[], clean = false): ReturnType<typeof defineConfig> =>
  defineConfig({
    entry,
    format: ['esm'],
    target: 'es2022',
    platform: 'neutral',
    tsconfig: 'tsconfig.build.json',
    sourcemap: true,
    dts: false,
    clean,
    silent: true,
    removeNodeProtocol: false,
    skipNodeModulesBundle: true,
  });
