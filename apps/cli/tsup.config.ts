import { build } from '../../.ci/tsup.shared.ts';

// Each command is a file of its own, loaded when it is asked for; their names change.
export default build(['src/main.ts', 'src/matrix-worker.ts'], true);
