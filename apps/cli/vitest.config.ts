import { defaultExclude, mergeConfig } from 'vitest/config';
import { shared } from '../../.ci/vitest.shared.ts';

export default mergeConfig(shared, {
  test: {
    // What needs a real QEMU, or long, is another suite: vitest.live.config.ts.
    exclude: [...defaultExclude, 'test/live/**', 'test/slow/**'],
    // Longer than all others, these tests are alone at the end: they take both of two cores then.
    maxWorkers: 2,
  },
});
