import { defineConfig, mergeConfig } from 'vitest/config';
import { shared } from '../../.ci/vitest.shared.ts';

// Its tests take longest, and the last half of that time there is nothing beside them.
export default mergeConfig(shared, defineConfig({ test: { maxWorkers: 2 } }));
