// How long the whole matrix takes: every cell, in one thread and in as many as there are processors.
//   node test/bench/matrix.mjs
import { spawnSync } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

for (const jobs of new Set([availableParallelism(), 1])) {
  const start = performance.now();
  const { stdout, status } = spawnSync(
    process.execPath,
    [MAIN, 'matrix', '--format', 'json', '--jobs', String(jobs)],
    { encoding: 'utf8', maxBuffer: 2 ** 28 },
  );
  if (status !== 0) throw new Error(`pinhole matrix ended with ${status}`);
  const { cells, outcomes } = JSON.parse(stdout);
  const seconds = (performance.now() - start) / 1000;
  const rate = cells.length / seconds;
  console.log(
    `${cells.length} cells, ${jobs} thread${jobs === 1 ? '' : 's'}: ${seconds.toFixed(1)} s, ${rate.toFixed(0)} cells/s (load of the machine: ${loadavg()[0]?.toFixed(1)})`,
  );
  console.log(
    `  ${Object.entries(outcomes)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')}`,
  );
}
