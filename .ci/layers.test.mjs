// The layer rule must be able to fail: each case is a small tree with one bad import (or a good
// one), cruised with the real configuration.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { cruise } from 'dependency-cruiser';

const { forbidden, options } = createRequire(import.meta.url)('../.dependency-cruiser.cjs');

/** Rules that `files` (path -> source) break. `built` packages resolve by name, as after a build. */
async function broken(files, built = []) {
  const root = mkdtempSync(join(tmpdir(), 'pinhole-layers-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const write = (path, text) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  write('package.json', '{"type":"module"}');
  mkdirSync(join(root, 'node_modules/@pinhole'), { recursive: true });
  for (const name of built) {
    const manifest = { name: `@pinhole/${name}`, exports: { '.': './dist/index.js' } };
    write(`packages/${name}/package.json`, JSON.stringify(manifest));
    write(`packages/${name}/dist/index.js`, 'export const x = 1;');
    symlinkSync(`../../packages/${name}`, join(root, 'node_modules/@pinhole', name));
  }
  for (const [path, text] of Object.entries(files)) write(path, text);
  const { output } = await cruise(Object.keys(files), {
    ...options,
    baseDir: root,
    validate: true,
    ruleSet: { forbidden },
  });
  return [...new Set(output.summary.violations.map(({ rule }) => rule.name))].sort();
}

const use = (name) => `import { x } from '${name}';\nexport const y: number = x;\n`;
const useType = (name) => `import type { X } from '${name}';\nexport type Y = X;\n`;

const cases = [
  ['a lower layer', 'packages/qemu/src/a.ts', use('@pinhole/tce'), []],
  ['a higher layer', 'packages/base/src/a.ts', use('@pinhole/memory'), ['layer-base']],
  ['a higher layer, types only', 'packages/tce/src/a.ts', useType('@pinhole/hcall'), ['layer-tce']],
  ['guest to qemu', 'packages/guest/src/a.ts', use('@pinhole/qemu'), ['layer-guest']],
  ['qemu to guest', 'packages/qemu/src/a.ts', use('@pinhole/guest'), ['layer-qemu']],
  ['hcall to trace', 'packages/hcall/src/a.ts', use('@pinhole/trace'), ['layer-hcall']],
  ['trace to hcall', 'packages/trace/src/a.ts', use('@pinhole/hcall'), ['layer-trace']],
  ['sideways by licence', 'packages/virtio/src/a.ts', use('@pinhole/memory'), []],
  ['sideways without', 'packages/virtio/src/a.ts', use('@pinhole/tce'), ['layer-virtio']],
  ['a test upwards', 'packages/tce/test/a.test.ts', use('@pinhole/machine'), ['layer-tce']],
  [
    'a package to an app',
    'packages/machine/src/a.ts',
    use('pinhole'),
    ['layer-machine', 'resolvable'],
  ],
  ['from recordings', 'packages/recordings/src/a.ts', use('@pinhole/base'), ['layer-recordings']],
  [
    'to recordings',
    'packages/machine/src/a.ts',
    use('@pinhole/recordings'),
    ['recordings-are-for-tests'],
  ],
  ['recordings in a test', 'packages/trace/src/a.test.ts', use('@pinhole/recordings'), []],
  ['recordings in an app', 'apps/cli/src/a.ts', use('@pinhole/recordings'), []],
  ['a package without a layer', 'packages/new/src/a.ts', use('@pinhole/base'), ['unknown-package']],
  [
    'use of one without a layer',
    'packages/machine/src/a.ts',
    use('@pinhole/new'),
    ['layer-machine'],
  ],
  ['a deep import', 'apps/cli/src/a.ts', use('@pinhole/tce/src/table.js'), ['no-deep-import']],
  ['a Node module', 'packages/tce/src/a.ts', "import 'node:fs';\n", ['packages-are-pure']],
  ['a Node module, old name', 'packages/tce/src/a.ts', "import 'fs';\n", ['packages-are-pure']],
  ['a Node module in a test', 'packages/tce/src/a.test.ts', "import 'node:fs';\n", []],
  ['a Node module in live', 'packages/live/src/a.ts', "import 'node:fs';\n", []],
  ['a Node module in an app', 'apps/cli/src/a.ts', "import 'node:fs';\n", []],
  ['a missing module', 'packages/tce/src/a.ts', use('./gone.js'), ['resolvable']],
];

for (const [name, path, text, rules] of cases) {
  test(name, async () => assert.deepEqual(await broken({ [path]: text }), rules));
}

for (const [name, path, text, rules] of cases.filter(([, , text]) =>
  /'@pinhole\/\w+'/.test(text),
)) {
  test(`${name}, built`, async () => {
    const target = /'@pinhole\/(\w+)'/.exec(text)[1];
    assert.deepEqual(await broken({ [path]: text }, [target]), rules);
  });
}

test('a relative import of another package', async () => {
  const files = {
    'packages/tce/src/a.ts': use('../../memory/src/b.js'),
    'packages/memory/src/b.ts': 'export const x = 1;\n',
  };
  assert.deepEqual(await broken(files), ['by-name']);
});

test('a cycle', async () => {
  const files = {
    'packages/tce/src/a.ts': "import './b.js';\n",
    'packages/tce/src/b.ts': "import './a.js';\n",
  };
  assert.deepEqual(await broken(files), ['no-cycles']);
});

test('a test imported by a source', async () => {
  const files = {
    'packages/tce/src/a.ts': "import './b.test.js';\n",
    'packages/tce/src/b.test.ts': 'export const x = 1;\n',
  };
  assert.deepEqual(await broken(files), ['sources-do-not-import-tests']);
});
