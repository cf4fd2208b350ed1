import { mergeConfig } from 'vitest/config';
import { shared } from '../../.ci/vitest.shared.ts';

export default mergeConfig(shared, {
  test: {
    // Longer than all others, these tests are alone at the end: they take both of two cores then.
    maxWorkers: 2,
  },
});
