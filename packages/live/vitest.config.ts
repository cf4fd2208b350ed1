import { shared } from '../../.ci/vitest.shared.ts';

export default shared;
