// Adds up a run: each vitest test, and each other task (build, types, lint, layers, ...) as one.
// The argument is the exit status so far: a failure that no report shows still counts as one.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const statusSoFar = process.argv[2] ?? '0';
const total = { passed: 0, failed: 0, skipped: 0 };

const list = (folder) => (existsSync(folder) ? readdirSync(folder) : []);
const readJson = (path) => JSON.parse(readFileSync(path, 'utf8'));

/** Failed tests by folder of the workspace, to tell a failed task from a failed test. */
const failures = new Map();
for (const workspace of ['packages', 'apps']) {
  for (const name of list(workspace)) {
    const folder = join(workspace, name);
    let failed = 0;
    for (const file of list(join(folder, '.vitest')).filter((file) => file.endsWith('.json'))) {
      try {
        const report = readJson(join(folder, '.vitest', file));
        total.passed += report.numPassedTests;
        total.skipped += report.numPendingTests + report.numTodoTests;
        failed += report.numFailedTests;
      } catch (error) {
        // Cut short: the run that wrote it did not end.
        failed += 1;
        console.log(`unreadable: ${join(folder, '.vitest', file)}: ${error.message}`);
      }
    }
    total.failed += failed;
    failures.set(folder, failed);
  }
}

for (const file of list('.turbo/runs').filter((file) => file.endsWith('.json'))) {
  for (const { taskId, task, directory, execution } of readJson(join('.turbo/runs', file)).tasks) {
    const ran = execution?.exitCode !== undefined && execution.exitCode !== null;
    const ok = execution?.exitCode === 0;
    if (!ran) {
      total.skipped += 1;
      console.log(`not run: ${taskId}`);
    } else if (!ok && !(task === 'test' && failures.get(directory) > 0)) {
      // A test file that does not load has no failed test to count.
      total.failed += 1;
      console.log(`failed: ${taskId}`);
    } else if (ok && task !== 'test') {
      total.passed += 1;
    }
  }
}

if (statusSoFar !== '0' && total.failed === 0) total.failed = 1;
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed > 0 ? 1 : 0;
