import { defaultExclude, mergeConfig } from 'vitest/config';
import { shared } from '../../.ci/vitest.shared.ts';

// What needs a real QEMU is another suite: vitest.live.config.ts.
export default mergeConfig(shared, { test: { exclude: [...defaultExclude, 'test/live/**'] } });
