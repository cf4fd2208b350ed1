import { build } from '../../.ci/tsup.shared.ts';

export default build(['src/index.ts', 'src/testing/index.ts']);
