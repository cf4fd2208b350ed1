// Every ```js live block of this package's README runs as it stands, and prints what is below it.
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { describeLive, QEMU } from './support/live.js';

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const examples = [...readme.matchAll(/^```js live\n(.*?)^```\n\n^```text\n(.*?)^```$/gms)].map(
  (match) => [match[1] ?? '', match[2] ?? ''] as const,
);

describeLive('README', () => {
  test('has examples', () => expect(examples).toHaveLength(2));

  test.each(examples)('example %$', async (code, output) => {
    const file = join(root, `.readme-example-${process.pid}.mjs`);
    // The QEMU under test stands in for the one in the PATH.
    const adapted = code.replace(/LiveQemu\.start\(\{?/, (start) =>
      start.endsWith('{')
        ? `${start} qemu: ${JSON.stringify(QEMU)},`
        : `${start}{ qemu: ${JSON.stringify(QEMU)} }`,
    );
    writeFileSync(file, adapted);
    try {
      const { stdout } = await promisify(execFile)(process.execPath, [file], { cwd: root });
      expect(stdout).toBe(output);
    } finally {
      rmSync(file, { force: true });
    }
  });
});
